"""The contenders, each with a space of the same four numbers to be tuned."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

import gradtx
from gradtx import labels, tuning


class Numbers(NamedTuple):
    """What is tuned of a method: arrays, or distributions of them.

    Attributes:
      rate: the learning rate's peak, in the method's own unit.
      shrink: -log of what weight decay alone would leave of a weight over the run. The decay per step follows from it,
        so it means the same at every rate and every length of a run (Wang & Aitchison, 2024, arXiv:2405.13698).
      forget: 1 - b of the method's most telling average; a recipe says which.
      warmup: share of the run until the rate's peak.
    """

    rate: Any
    shrink: Any
    forget: Any
    warmup: Any


class Setting(NamedTuple):
    """What a recipe is built from."""

    numbers: Numbers
    steps: Any  # of the run, int32

    @property
    def warmup_steps(self) -> Any:
        return jax.numpy.int32(self.numbers.warmup * self.steps)

    def scaled(self, factor: float) -> gradtx.Schedule:
        """A factor of the learning rate: in a line up to the peak, then along half a cosine to 0."""
        peak = factor * self.numbers.rate
        begin = peak / (self.warmup_steps + 1)
        return gradtx.warmup_cosine_decay_schedule(begin, peak, self.warmup_steps, self.steps, 0.0)

    @property
    def rate(self) -> gradtx.Schedule:
        return self.scaled(1.0)

    @property
    def decay(self) -> Any:
        """Of a method whose learning rate is `rate`: the sum of rates over a run is half of peak times steps."""
        return 2 * self.numbers.shrink / (self.numbers.rate * self.steps)

    @property
    def b(self) -> Any:
        return 1 - self.numbers.forget


class Recipe(NamedTuple):
    """A contender.

    Attributes:
      build: from a setting, whose numbers are tracers, to a transformation of either library.
      space: numbers as distributions.
      forgets: what `forget` is of.
    """

    build: Callable[[Setting], Any]
    space: Numbers
    forgets: str


SLOW = (1e-3, 1e-1)  # 1 - b2, of squares
FAST = (1e-2, 3e-1)  # 1 - b of a momentum
BETA = 0.99  # b2 where it is not tuned; a run has some hundred steps
OTHERS = labels.groups({"others": ~labels.role("matrix") | labels.path("^last/"), "matrices": ...})
POLAR = gradtx.newton_schulz("polar_express")


def space(low: float, forget: tuple[float, float] = SLOW) -> Numbers:
    """Two decades of rates from `low` on."""
    shrink, warmup = tuning.log_uniform(0.01, 2.0), tuning.uniform(0.02, 0.3)
    return Numbers(tuning.log_uniform(low, 100 * low), shrink, tuning.log_uniform(*forget), warmup)


def not_vectors(params: Any) -> Any:
    """What decays: biases and the scales of normalizations do not."""
    return jax.tree.map(lambda p: p.ndim > 1, params)


def entrywise(name: str, low: float = 3e-4, decays: str = "b2", **options: Any) -> Recipe:
    """A method of all parameters, with decoupled decay and one decay that is tuned."""

    def build(s: Setting) -> Any:
        given = options | {decays: s.b}
        return getattr(gradtx, name)(s.rate, weight_decay=s.decay, mask=not_vectors, **given)

    return Recipe(build, space(low), decays)


def decayed(direction: Callable[[Setting], Any], low: float, forgets: str) -> Recipe:
    """A direction for all parameters, then the decay, then the rate."""

    def build(s: Setting) -> Any:
        decay = gradtx.add_decayed_weights(s.decay, not_vectors)
        return gradtx.chain(direction(s), decay, gradtx.scale_by_learning_rate(s.rate))

    return Recipe(build, space(low), forgets)


def of_matrices(
    method: Callable[[Setting], Any],
    low: float = 3e-4,
    forget: tuple[float, float] = FAST,
    forgets: str = "momentum",
    others: float = 1.0,
) -> Recipe:
    """A method of the hidden matrices; embeddings, the head and vectors are AdamW's, with `others` times the rate."""

    def build(s: Setting) -> Any:
        adamw = gradtx.adamw(s.scaled(others), b2=BETA, weight_decay=s.decay / others, mask=not_vectors)
        return gradtx.partition({"matrices": method(s), "others": adamw}, OTHERS)

    return Recipe(build, space(low, forget), forgets)


def optax_adamw(s: Setting) -> Any:
    return optax.adamw(s.rate, b2=s.b, weight_decay=s.decay, mask=not_vectors)


def optax_muon(s: Setting) -> Any:
    muon = optax.contrib.muon(s.rate, beta=s.b, weight_decay=s.decay, consistent_rms=0.2)
    adamw = optax.adamw(s.rate, b2=BETA, weight_decay=s.decay, mask=not_vectors)
    return optax.partition({"matrices": muon, "others": adamw}, OTHERS)


def muon(s: Setting) -> Any:
    return gradtx.muon(s.rate, beta=s.b, weight_decay=s.decay, consistent_rms=0.2, orthogonalizer=POLAR)


def normuon(s: Setting) -> Any:
    momentum = gradtx.ema(s.b, debias=False, nesterov=True)
    return gradtx.normuon(s.rate, momentum, weight_decay=s.decay, consistent_rms=0.2, orthogonalizer=POLAR)


def soap(s: Setting) -> Any:
    return gradtx.soap(s.rate, b2=s.b, weight_decay=s.decay)


def kl_soap(s: Setting) -> Any:
    return gradtx.kl_soap(s.rate, b2=s.b, weight_decay=s.decay)


def soap_muon(s: Setting) -> Any:
    return gradtx.soap_muon(s.rate, b2=s.b, weight_decay=s.decay, consistent_rms=0.2, precondition_frequency=10)


def composed(s: Setting) -> Any:
    """Muon's directions at fixed norms, NAdam for the others, and a rate that falls in a line."""
    up, steps, rate = s.warmup_steps, s.steps, s.numbers.rate

    def line(factor: float) -> gradtx.Schedule:
        rise = gradtx.linear_schedule(factor * rate / (up + 1), factor * rate, up)
        return gradtx.join_schedules([rise, gradtx.linear_schedule(factor * rate, 0.0, steps - up)], [up])

    others = 0.2
    matrices = gradtx.hyperball(gradtx.scale_by_muon(beta=s.b, orthogonalizer=POLAR), line(1.0))
    nadamw = gradtx.nadamw(line(others), b2=BETA, weight_decay=s.decay / others, mask=not_vectors)
    return gradtx.partition({"matrices": matrices, "others": nadamw}, OTHERS)


def muon_hyperball(s: Setting) -> Any:
    return gradtx.hyperball(gradtx.scale_by_muon(beta=s.b, orthogonalizer=POLAR), s.rate)


def psgd_kron(s: Setting) -> Any:
    return gradtx.psgd_kron(s.rate, s.b, weight_decay=s.decay)


def shampoo(s: Setting) -> Any:
    return gradtx.shampoo(s.rate, b2=s.b, weight_decay=s.decay, graft="adam", graft_b2=BETA, frequency=10)


SIGNS = 0.08  # an entry's step in embeddings and head over that of a matrix's spectral norm, in the authors' GPT


def scion(s: Setting) -> Any:
    matrices = gradtx.scion(lambda t: s.rate(t) * s.decay, 1 - s.numbers.forget, scale=1 / s.decay)
    ends = [gradtx.ema(s.b, debias=False), gradtx.scale_by_sign()]
    ends += [gradtx.add_decayed_weights(s.decay / SIGNS, not_vectors), gradtx.scale_by_learning_rate(s.scaled(SIGNS))]
    return gradtx.partition({"matrices": matrices, "others": gradtx.chain(*ends)}, OTHERS)


def schedule_free(s: Setting) -> Any:
    rate, decay = s.numbers.rate, s.decay / 2  # the rate does not fall
    return gradtx.schedule_free_adamw(rate, s.warmup_steps, b2=s.b, weight_decay=decay, mask=not_vectors)


def ademamix(s: Setting) -> Any:
    alpha = gradtx.linear_schedule(0.0, 5.0, s.steps)
    return gradtx.ademamix(s.rate, b2=BETA, b3=s.b, alpha=alpha, weight_decay=s.decay, mask=not_vectors)


def sophia(s: Setting) -> Any:
    return gradtx.sophia(s.rate, b2=s.b, weight_decay=s.decay, weight_decay_mask=not_vectors)


RECIPES: dict[str, Recipe] = {
    "adamw": entrywise("adamw"),
    "optax adamw": Recipe(optax_adamw, space(3e-4), "b2"),
    "optax muon": Recipe(optax_muon, space(3e-4, FAST), "momentum"),
    "nadamw": entrywise("nadamw"),
    "laprop": entrywise("laprop"),
    "mars": entrywise("mars"),
    "cautious adamw": decayed(lambda s: gradtx.cautious(gradtx.scale_by_adam(b2=s.b)), 3e-4, "b2"),
    "adam_mini": entrywise("adam_mini"),
    "came": entrywise("came"),
    "apollo": entrywise("apollo", rank=24),
    "lion": entrywise("lion", low=3e-5),
    "ademamix": Recipe(ademamix, space(3e-4, (1e-3, 3e-2)), "b3"),
    "schedule_free_adamw": Recipe(schedule_free, space(1e-3), "b2"),
    "adopt": decayed(lambda s: gradtx.scale_by_adopt(b2=s.b), 3e-4, "b2"),
    "adan": entrywise("adan", decays="b3"),
    "sophia": Recipe(sophia, space(3e-4), "b2"),
    "muon": of_matrices(muon),
    "normuon": of_matrices(normuon),
    "composed": Recipe(composed, space(3e-3, FAST), "momentum"),
    "muon hyperball": of_matrices(muon_hyperball, low=3e-3, others=0.2),
    "scion": Recipe(scion, space(3e-3, FAST), "momentum"),
    "soap": of_matrices(soap, forget=SLOW, forgets="b2"),
    "kl_soap": of_matrices(kl_soap, forget=SLOW, forgets="b2"),
    "soap_muon": of_matrices(soap_muon, forget=SLOW, forgets="b2"),
    "shampoo": of_matrices(shampoo, forget=SLOW, forgets="b2"),
    "psgd_kron": of_matrices(psgd_kron, low=1e-4, others=3.0),
}
BASELINE = "adamw"

"""Decay of the weight that a step leads to, after whatever decided it."""

from typing import Any

import jax.numpy as jnp

from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.geometry import ratio
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight import inner, steps_to
from gradtx.value import flag, number, static

COUPLINGS = ("rate", "schedule", "none", "squared")


@transformation
class decay_weights(GradientTransformation):
    """Makes the weights smaller to which the steps lead. It goes after the learning rate.

        W' = W + u
        W'' = W' - learning_rate weight_decay W'            W in place of the last W' with `of` "old"
        u' = W'' - W
        if cautious: W'' = W' in the entries where u W >= 0

    After `keep_norm` or `radial_brake` it decays what these decided. `add_decayed_weights` stands before the learning
    rate, which multiplies it; here that is an argument, and where the rate is a schedule, the same schedule. What
    multiplies the decay then follows it, in a compiled step too:

    | coupling | in the place of learning_rate | |
    |---|---|---|
    | "rate" | learning_rate | PyTorch's and Optax's AdamW, with `of` "old" |
    | "schedule" | learning_rate / peak | AdamW's paper |
    | "none" | 1 | |
    | "squared" | learning_rate^2 / peak | AdamC |

    Args:
      weight_decay: not negative; per update, the fraction that is removed, times what the table says.
      learning_rate: not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      cautious: only entries decay whose step makes them smaller. The step is what comes in: of a projection, the whole.
      of: what decays, the "new" weight or the "old" one, as it was before the step.
      start: the number of the first update that decays, from 1.
      coupling: how the decay follows the rate.
      peak_learning_rate: the largest rate, positive. Read with "schedule" and "squared". None: the rate, which must
        then be a number.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf; a coupling that reads the peak of
        a schedule, and no `peak_learning_rate`.
    Source: the optimization track of modded-nanogpt, 2026, record 46; cautious: Chen et al., Cautious weight decay,
      2025 (arXiv:2510.12402), where entries with u W = 0 decay, too, as with `add_decayed_weights`. Of complex entries,
      those decay in which Re(u conj(W)) < 0. Couplings: Loshchilov, Hutter, ICLR 2019 (arXiv:1711.05101), Algorithm 2;
      Defazio, Why gradients rapidly increase near the end of training, 2025 (arXiv:2506.02285), for normalized layers.
    """

    weight_decay: Hyperparameter = number(within="[0, inf)")
    learning_rate: Hyperparameter = number(default=1.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    cautious: bool = flag(default=False, kw_only=True)
    of: str = static(default="new", one_of=("new", "old"), kw_only=True)
    start: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)
    coupling: str = static(default="rate", one_of=COUPLINGS, kw_only=True)
    peak_learning_rate: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if (
            self.coupling in ("schedule", "squared")
            and self.peak_learning_rate is None
            and callable(self.learning_rate)
        ):
            raise ValueError(
                f"`decay_weights`: with coupling {self.coupling!r} and a schedule for learning_rate give its largest "
                "value, peak_learning_rate."
            )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, rate = at(state.count, self.weight_decay, self.learning_rate)
        (peak,) = (rate,) if self.peak_learning_rate is None else at(state.count, self.peak_learning_rate)
        count = tick(state.count)
        fraction = jnp.where(count >= self.start, decay * _coupled(self.coupling, rate, peak), 0.0)

        def formula(w, step, decays):
            moved = w + step
            if not decays:
                return moved
            lost = fraction * (moved if self.of == "new" else w)
            return moved - (jnp.where(inner(w, step) < 0, lost, 0) if self.cautious else lost)

        decays = chosen(self.mask, params, self.name)
        return steps_to(formula, updates, params, decays), ClockState(count)


def _coupled(coupling: str, rate: Any, peak: Any) -> Any:
    """What multiplies the decay."""
    if coupling in ("rate", "none"):
        return rate if coupling == "rate" else 1.0
    return ratio(rate, peak) * (rate if coupling == "squared" else 1.0)


def decoupled(
    learning_rate: Hyperparameter,
    weight_decay: Hyperparameter,
    mask: Any,
    coupling: str = "rate",
    peak_learning_rate: Hyperparameter | None = None,
    cautious: bool = False,
) -> GradientTransformation:
    """The end of a chain whose weight decay bypasses the moments: the rate, and the decay before or after it."""
    to_steps = scale_by_learning_rate(learning_rate)
    if coupling == "rate":
        return chain(add_decayed_weights(weight_decay, mask, cautious=cautious), to_steps)
    coupled = decay_weights(
        weight_decay, learning_rate, mask,
        cautious=cautious, of="old", coupling=coupling, peak_learning_rate=peak_learning_rate,
    )  # fmt: skip
    return chain(to_steps, coupled)

"""Every public transformation, once: what the contract is proved for, what is measured, and what Optax is compared in.

A new one is a line here. `tests/test_contract.py` proves every rule of the house for it; `tests/peers` compares it with
Optax, where Optax has it; with `moves`, benchmarks measure it and `tests/benchmarks/test_traffic.py` holds it to that.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.core import GradientTransformation, transformation
from gradtx.optimizers.adam_mini import AdamMiniBlocks
from gradtx.value import part, static


class Entry(NamedTuple):
    """How a transformation is built, and what is known of it."""

    build: Callable[[Any], Any]  # from a library, gradtx or optax, with the least arguments
    moves: tuple[float, float] | None = None  # a method's bytes accessed and temporary bytes per parameter, on the CPU
    joined: tuple[float, float] | None = None  # those where XLA's CPU compiler joins loops: `placement.joins_loops`
    theirs: Callable[[Any], Any] | None = None  # how it is built from optax, where the call is another
    differs: str = ""  # from Optax, and why: the row of docs/from-optax.md that says so begins with these words


def _unchanged(g: Any, p: Any) -> Any:
    """A function of an update and its parameter that builds equal transformations each time."""
    return g


def _by_rank(params: Any) -> Any:
    """Labels by rank: 0 for what is no matrix."""
    return jax.tree.map(lambda p: int(p.ndim > 1), params)


def _is_vector(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim == 1, params)


def _is_matrix(params: Any) -> Any:
    """Not of empty ones, by whose shape Optax divides."""
    return jax.tree.map(lambda p: p.ndim == 2 and p.size > 0, params)


@transformation
class _Given(GradientTransformation):
    """A transformation that is given more than the steps of the tests give."""

    inner: GradientTransformation = part()
    extra: Callable = static()  # keyword arguments of `update`

    def init(self, params):
        return self.inner.bare_init(params)

    def update(self, updates, state, params=None, **extra):
        return self.inner.bare_update(updates, state, params, **extra, **self.extra())


def _heads(params: Any) -> Any:
    """Adam-mini's blocks: two heads along the last axis, where it is even."""
    has_two = lambda p: p.ndim > 1 and p.size and p.shape[-1] % 2 == 0
    return jax.tree.map(lambda p: AdamMiniBlocks(0, {-1: 2}) if has_two(p) else AdamMiniBlocks(), params)


def _logits() -> Any:
    """Of two heads, one of which is too loud."""
    return {"max_logits": {"dense": jnp.array([0.25, 2.0])}}


class _LastTwoAxes(NamedTuple):
    """Dimension numbers: both libraries know them by their fields, Optax by its own class, too."""

    reduction_axis: int = -2
    output_axis: int = -1


def _stacks(params: Any, kind: type = _LastTwoAxes) -> Any:
    """Dimension numbers of matrices and of stacks of them."""
    return jax.tree.map(lambda p: kind(-2, -1) if p.ndim > 1 and p.size else None, params)


def _matrices(params: Any, kind: type = _LastTwoAxes) -> Any:
    """Dimension numbers of matrices alone."""
    return jax.tree.map(lambda p: kind(0, 1) if p.ndim == 2 and p.size else None, params)


def _muon_all(lib: Any, numbers: Any) -> Any:
    return lib.contrib.muon(
        1e-3,
        "dion",
        weight_decay=0.01,
        nesterov=False,
        adaptive=True,
        preconditioning="aol",
        consistent_rms=0.2,
        muon_weight_dimension_numbers=numbers,
    )


def _sam(lib: Any, **options: Any) -> Any:
    uphill = lib.chain(lib.contrib.normalize(), lib.adam(0.05))
    return lib.contrib.sam(lib.sgd(0.1, momentum=0.9), uphill, **options)


def _without_extra(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Optax's form of a transformation that takes no extra arguments there, but a `grad_fn` of two."""

    def theirs(optax: Any) -> Any:
        tx = build(optax)

        def update(updates: Any, state: Any, params: Any = None, *, value_fn: Any = None, **extra: Any) -> Any:
            return tx.update(updates, state, params, grad_fn=lambda p, i: jax.grad(value_fn)(p))

        return optax.GradientTransformationExtraArgs(tx.init, update)

    return theirs


def _largest(updates: Any) -> Any:
    """A measure of the updates."""
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x), initial=0.0) for x in jax.tree.leaves(updates)] or [jnp.zeros(())]))


def _squares(g: Any, p: Any) -> Any:
    """A positive curvature that both libraries can take."""
    return jax.tree.map(lambda g: g * g, g)


def _as_examples(updates: Any, params: Any) -> Any:
    """Gradients of three examples, of which these would be the mean, for what takes such."""
    return leafwise.map(lambda g: jnp.stack([g, 3 * g, -g]), updates)


def _of_examples(lib: Any, tx: Any) -> Any:
    return lib.chain(lib.stateless(_as_examples), tx)


def _plain(build: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Optax's form of a transformation that takes no extra arguments there."""

    def theirs(optax: Any) -> Any:
        tx = build(optax)
        return optax.GradientTransformation(tx.init, lambda g, s, p=None: tx.update(g, s, p))

    return theirs


def _averaging(lib: Any, steps: int) -> Any:
    """The mean of examples, and of micro-batches, for an optimizer."""
    aggregating = lib.experimental.aggregating
    mean = aggregating.average_incrementally_updates(0, steps)
    return aggregating.process(lib.stateless(_as_examples), mean, lib.adam(1e-2))


def _measuring_variance(lib: Any, steps: int) -> Any:
    tx = lib.experimental.aggregating.add_mean_variance_to_opt(lib.adam(1e-2), 0.5, 0, steps)
    return lib.chain(lib.stateless(_as_examples), tx)


def _at_odd_steps(step: Any) -> Any:
    return step % 2 == 1


def _quietly(build: Callable, *args: Any) -> Any:
    """Of what is deprecated."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return build(*args)


# `moves`: lower a number when a change improves it; raise one only for a reason. The least is 12 and 8 more per slot of
# state; XLA on the CPU writes each slot in a pass of its own. Hyperparameters are spelled out where the step would
# otherwise leave out work that users ask for.
CATALOGUE = {
    # transformations
    "identity": Entry(lambda lib: lib.identity()),
    "scale": Entry(lambda lib: lib.scale(0.5)),
    "scale_by_learning_rate": Entry(lambda lib: lib.scale_by_learning_rate(0.1)),
    "scale_by_schedule": Entry(lambda lib: lib.scale_by_schedule(0.1), theirs=lambda optax: optax.scale(0.1)),
    "trace": Entry(lambda lib: lib.trace(0.9)),
    "trace nesterov bfloat16": Entry(lambda lib: lib.trace(0.9, nesterov=True, accumulator_dtype=jnp.bfloat16)),
    "ema": Entry(lambda lib: lib.ema(0.9)),
    "ema biased": Entry(lambda lib: lib.ema(0.9, debias=False)),
    "add_decayed_weights": Entry(lambda lib: lib.add_decayed_weights(0.01)),
    "add_decayed_weights cautious": Entry(lambda lib: lib.add_decayed_weights(0.01, cautious=True)),
    "add_decayed_weights masked": Entry(lambda lib: lib.add_decayed_weights(0.01, mask="kernel$")),
    "add_l1_subgradient": Entry(lambda lib: lib.add_l1_subgradient(0.01)),
    "proximal_l1": Entry(lambda lib: lib.proximal_l1(0.01)),
    "clip": Entry(lambda lib: lib.clip(0.5)),
    "clip_by_global_norm": Entry(lambda lib: lib.clip_by_global_norm(0.5)),
    "clip_by_block_rms": Entry(lambda lib: lib.clip_by_block_rms(0.5)),
    "adaptive_grad_clip": Entry(lambda lib: lib.adaptive_grad_clip(0.1)),
    "clip_spikes": Entry(lambda lib: lib.clip_spikes(2.0)),
    "clip_by_running_max": Entry(lambda lib: lib.clip_by_running_max(0.5)),
    "normalize_by_running_norm": Entry(lambda lib: lib.normalize_by_running_norm()),
    "keep_params_nonnegative": Entry(lambda lib: lib.keep_params_nonnegative()),
    "scale_by_rss": Entry(lambda lib: lib.scale_by_rss()),
    "scale_by_rms": Entry(lambda lib: lib.scale_by_rms()),
    "scale_by_stddev": Entry(lambda lib: lib.scale_by_stddev()),
    "scale_by_adam": Entry(lambda lib: lib.scale_by_adam()),
    "scale_by_adamax": Entry(lambda lib: lib.scale_by_adamax()),
    "scale_by_belief": Entry(lambda lib: lib.scale_by_belief()),
    "scale_by_amsgrad": Entry(lambda lib: lib.scale_by_amsgrad()),
    "scale_by_radam": Entry(lambda lib: lib.scale_by_radam()),
    "scale_by_lion": Entry(lambda lib: lib.scale_by_lion()),
    "scale_by_lion smooth": Entry(lambda lib: lib.scale_by_lion(mode="smooth", smooth_beta=0.5)),
    "scale_by_lion refined": Entry(lambda lib: lib.scale_by_lion(mode="refined")),
    "scale_by_newton": Entry(lambda lib: lib.scale_by_newton()),
    # with little decay a scalar parameter, whose update is as long as it is, would land on 0 up to rounding
    "scale_by_lamb": Entry(lambda lib: lib.scale_by_lamb(weight_decay=10.0)),
    "scale_by_lars": Entry(lambda lib: lib.scale_by_lars(0.01)),
    "scale_by_factored_rms": Entry(lambda lib: lib.scale_by_factored_rms(min_dim_size_to_factor=2)),
    "scale_by_factored_rms last": Entry(
        lambda lib: lib.scale_by_factored_rms(min_dim_size_to_factor=2, factored_dims="last")
    ),
    # at b1 = 0 a mean is divided by sqrt(eps2) alone: of 1e-16 the slopes would overflow float32
    "scale_by_came": Entry(lambda lib: lib.scale_by_came(eps2=1e-8)),
    "scale_by_adam_mini": Entry(lambda lib: lib.scale_by_adam_mini()),
    "scale_by_bias_correction": Entry(lambda lib: lib.scale_by_bias_correction()),
    "limit_norm_growth": Entry(lambda lib: lib.limit_norm_growth()),
    "scale_by_trust_ratio": Entry(lambda lib: lib.scale_by_trust_ratio(trust_coefficient=0.5)),  # 1: a scalar becomes 0
    "scale_by_param_block_rms": Entry(lambda lib: lib.scale_by_param_block_rms()),
    "scale_by_param_block_rms clipped": Entry(lambda lib: lib.scale_by_param_block_rms(clipping_threshold=0.5)),
    "scale_by_param_block_norm": Entry(lambda lib: lib.scale_by_param_block_norm()),
    "normalize_by_update_norm": Entry(lambda lib: lib.normalize_by_update_norm()),
    "scale_by_sign": Entry(lambda lib: lib.scale_by_sign()),
    "centralize": Entry(lambda lib: lib.centralize()),
    "add_noise": Entry(lambda lib: lib.add_noise(0.01, 0.55, key=0), differs="`add_noise`"),
    "zero_nans": Entry(lambda lib: lib.zero_nans()),
    "set_to_zero": Entry(lambda lib: lib.set_to_zero()),
    "scale_by_group": Entry(
        lambda lib: lib.scale_by_group({0: 0.5, 1: 2.0}, _by_rank),
        theirs=lambda optax: optax.partition({0: optax.scale(0.5), 1: optax.scale(2.0)}, _by_rank),
    ),
    # "masked" because it goes by the paths, as masks do: other paths give other numbers
    "layerwise_decay masked": Entry(lambda lib: lib.layerwise_decay(0.5), theirs=lambda optax: optax.identity()),
    "stateless": Entry(lambda lib: lib.stateless(_unchanged)),
    "stateless_with_tree_map": Entry(lambda lib: lib.stateless_with_tree_map(_unchanged)),
    "with_extra_args_support": Entry(lambda lib: lib.with_extra_args_support(lib.scale(0.5))),
    # combinators
    "chain": Entry(lambda lib: lib.chain(), theirs=lambda optax: optax.identity()),
    "named_chain": Entry(lambda lib: lib.named_chain(("clip", lib.clip(1.0)), ("adam", lib.adam(1e-2)))),
    "apply_if_finite": Entry(lambda lib: lib.apply_if_finite(lib.adam(1e-2))),
    "monitor": Entry(lambda lib: lib.monitor(lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(1e-2)))),
    "monitor masked": Entry(lambda lib: lib.monitor(lib.masked(lib.clip(0.5), "kernel"))),
    "masked": Entry(lambda lib: lib.masked(lib.scale_by_adam(), "kernel")),
    "snapshot": Entry(lambda lib: lib.snapshot("largest", _largest)),
    "monitor measures": Entry(
        lambda lib: lib.monitor({"largest": _largest, "average": lib.measure_with_ema(_largest, 0.9)}),
        theirs=lambda optax: optax.identity(),  # which theirs is, in a scan impossible: its state changes its structure
    ),
    "flatten": Entry(lambda lib: lib.flatten(lib.chain(lib.clip_by_block_rms(0.5), lib.adam(1e-2)))),
    "partition": Entry(lambda lib: lib.partition({0: lib.adam(1e-2), 1: lib.trace(0.9)}, _by_rank)),
    "multi_transform": Entry(lambda lib: lib.multi_transform({0: lib.adam(1e-2), 1: lib.set_to_zero()}, _by_rank)),
    "freeze": Entry(lambda lib: lib.freeze(_is_vector)),
    "selective_transform": Entry(
        lambda lib: lib.selective_transform(lib.adam(1e-2), freeze_mask=_is_vector), differs="`selective_transform`"
    ),
    "MultiSteps": Entry(
        lambda lib: lib.MultiSteps(lib.adam(1e-2), 2),
        theirs=lambda optax: optax.MultiSteps(optax.adam(1e-2), 2).gradient_transformation(),
    ),
    "MultiSteps skipping": Entry(
        lambda lib: lib.MultiSteps(lib.sgd(0.1), 3, False, lib.skip_not_finite, None),
        theirs=lambda optax: optax.MultiSteps(
            optax.sgd(0.1), 3, False, optax.skip_not_finite, None
        ).gradient_transformation(),
    ),
    "apply_every": Entry(lambda lib: lib.apply_every(2)),
    "conditionally_transform": Entry(lambda lib: lib.conditionally_transform(lib.adam(1e-2), _at_odd_steps)),
    "conditionally_mask": Entry(lambda lib: lib.conditionally_mask(lib.trace(0.9), _at_odd_steps)),
    "reset_every": Entry(lambda lib: lib.reset_every(lib.adam(1e-2), 3, 2)),
    "reset_every all": Entry(lambda lib: lib.reset_every(lib.adam(1e-2), 3, 2, 0.5, restart_time=True)),
    # methods
    "sgd plain": Entry(lambda lib: lib.sgd(0.1)),
    "sgd": Entry(lambda lib: lib.sgd(0.01, momentum=0.9), moves=(24, 0), joined=(20, 0)),
    "sgd nesterov": Entry(lambda lib: lib.sgd(0.01, momentum=0.9, nesterov=True), moves=(28, 0), joined=(20, 0)),
    "momentum": Entry(
        lambda lib: lib.momentum(0.01, 0.9),
        moves=(24, 0),
        joined=(20, 0),
        theirs=lambda optax: optax.sgd(0.01, momentum=0.9),
    ),
    "momentum velocity": Entry(lambda lib: lib.momentum(0.1, form="velocity")),
    "momentum averaged": Entry(lambda lib: lib.momentum(0.1, form="averaged")),
    "momentum unbiased": Entry(lambda lib: lib.momentum(0.1, form="unbiased")),
    "adagrad": Entry(lambda lib: lib.adagrad(0.01), moves=(28, 0), joined=(20, 0)),
    "rmsprop": Entry(lambda lib: lib.rmsprop(1e-3), moves=(28, 0), joined=(20, 0)),
    "rmsprop centered": Entry(
        lambda lib: lib.rmsprop(1e-3, centered=True, momentum=0.9), moves=(56, 0), joined=(36, 0)
    ),
    "adam": Entry(lambda lib: lib.adam(1e-3), moves=(40, 0), joined=(28, 0)),
    "adam bfloat16": Entry(lambda lib: lib.adam(0.1, mu_dtype="bfloat16")),
    "adam uncorrected": Entry(lambda lib: lib.adam(0.1, bias_correction=False)),
    "adamw": Entry(lambda lib: lib.adamw(1e-3, weight_decay=0.01), moves=(40, 0), joined=(28, 0)),
    "adamw masked": Entry(lambda lib: lib.adamw(0.1, mask={"dense": {"kernel": True, "bias": False}, "scale": False})),
    "nadam": Entry(lambda lib: lib.nadam(1e-3), moves=(44, 0), joined=(28, 0)),
    "nadamw": Entry(lambda lib: lib.nadamw(1e-3, weight_decay=0.01), moves=(44, 0), joined=(28, 0)),
    "amsgrad": Entry(lambda lib: lib.amsgrad(1e-3), moves=(52, 0), joined=(36, 0)),
    "adabelief": Entry(lambda lib: lib.adabelief(1e-3), moves=(44, 0), joined=(28, 0)),
    "radam": Entry(lambda lib: lib.radam(1e-3), moves=(40, 0), joined=(28, 0)),
    "adamax": Entry(lambda lib: lib.adamax(1e-3), moves=(40, 0), joined=(28, 0)),
    "scale_by_spam": Entry(lambda lib: lib.scale_by_spam(b2=0.9, threshold=2.0)),
    "spam": Entry(lambda lib: lib.spam(1e-3, weight_decay=0.01), moves=(68, 4), joined=(28, 0)),
    "spam often": Entry(lambda lib: lib.spam(0.1, threshold=2.0, clip_after=1, period=3, warmup_steps=2)),
    "stable_spam": Entry(lambda lib: lib.stable_spam(1e-3, weight_decay=0.01), moves=(64, 4), joined=(44, 4)),
    "stable_spam amsgrad": Entry(lambda lib: lib.stable_spam(0.1, period=3, amsgrad=True)),
    "adabelief amsgrad": Entry(lambda lib: lib.adabelief(0.01, b2=0.9, rectify=True, amsgrad=True)),
    "acprop rectified": Entry(lambda lib: lib.acprop(0.01, b2=0.9, momentum_update=True, rectify=True, new_mean=True)),
    "lamb bounded": Entry(lambda lib: lib.lamb(0.01, weight_decay=10.0, max_ratio=0.5, trust_ratio_mask=_is_vector)),
    "lars larc": Entry(lambda lib: lib.lars(0.1, 0.01, trust_coefficient=0.1, of_sum=False, larc=True)),
    "prodigy growing": Entry(lambda lib: lib.prodigy(estim_lr0=0.01, growth_rate=1.5, bias_correction=False)),
    "ademamix warming": Entry(lambda lib: lib.ademamix(0.01, warmup=10)),
    "adamaxw": Entry(lambda lib: lib.adamaxw(1e-3, weight_decay=0.01), moves=(40, 0), joined=(28, 0)),
    "lamb": Entry(lambda lib: lib.lamb(1e-3, weight_decay=0.01), moves=(54, 1), joined=(46, 1)),
    "lars": Entry(lambda lib: lib.lars(0.1, weight_decay=1e-4), moves=(38, 1), joined=(30, 1)),
    "adafactor": Entry(lambda lib: lib.adafactor(0.01, min_dim_size_to_factor=2), moves=(30.3, 1), joined=(30.3, 1)),
    "adafactor all": Entry(lambda lib: lib.adafactor(0.1, 2, momentum=0.9, weight_decay_rate=1e-3)),
    "lion": Entry(lambda lib: lib.lion(1e-4, weight_decay=0.1), moves=(28, 0), joined=(20, 0)),
    "came": Entry(lambda lib: lib.came(1e-3, weight_decay=0.01), moves=(64.4, 4), joined=(92, 12)),
    "adam_mini": Entry(lambda lib: lib.adam_mini(1e-3, weight_decay=0.01), moves=(28, 0), joined=(24, 0)),
    "adam_mini heads": Entry(lambda lib: lib.adam_mini(1e-3, blocks=_heads)),
    "newton": Entry(lambda lib: lib.newton()),
    "scale_by_lbfgs": Entry(lambda lib: lib.scale_by_lbfgs(3), differs="`lbfgs` on functions that are not convex"),
    "scale_by_backtracking_linesearch": Entry(
        lambda lib: lib.scale_by_backtracking_linesearch(5), differs="line searches that find no decrease"
    ),
    "scale_by_backtracking_linesearch gradient": Entry(
        lambda lib: lib.chain(lib.sgd(1.0), lib.scale_by_backtracking_linesearch(5, store_grad=True)),
        differs="line searches that find no decrease",
    ),
    "scale_by_zoom_linesearch": Entry(
        lambda lib: lib.chain(lib.sgd(1.0), lib.scale_by_zoom_linesearch(5)),
        differs="line searches that find no decrease",
    ),
    "lbfgs": Entry(lambda lib: lib.lbfgs(memory_size=3), differs="`lbfgs` on functions that are not convex"),
    "newton cg": Entry(lambda lib: lib.newton(1.0, 0.1, "cg")),
    "sign_sgd": Entry(lambda lib: lib.sign_sgd(1e-3), moves=(12, 0), joined=(12, 0)),
    "signum": Entry(lambda lib: lib.signum(1e-3), moves=(24, 0), joined=(20, 0)),
    "scale_by_yogi": Entry(lambda lib: lib.scale_by_yogi()),
    "yogi": Entry(lambda lib: lib.yogi(1e-3), moves=(40, 0), joined=(28, 0)),
    "scale_by_novograd": Entry(lambda lib: lib.scale_by_novograd()),
    "novograd": Entry(lambda lib: lib.novograd(1e-3, weight_decay=0.01), moves=(32, 0), joined=(24, 0)),
    "scale_by_adadelta": Entry(lambda lib: lib.scale_by_adadelta()),
    "adadelta": Entry(lambda lib: lib.adadelta(1.0, weight_decay=0.01), moves=(60, 4), joined=(28, 0)),
    "noisy_sgd": Entry(lambda lib: lib.noisy_sgd(1e-3, key=0), moves=(68, 16), joined=(144, 16), differs="`add_noise`"),
    "fromage": Entry(lambda lib: lib.fromage(0.01), moves=(22, 1), joined=(22, 1)),
    "scale_by_adan": Entry(lambda lib: lib.scale_by_adan()),
    "adan": Entry(lambda lib: lib.adan(1e-3, weight_decay=0.01), moves=(80, 4), joined=(44, 0)),
    "scale_by_sm3": Entry(lambda lib: lib.scale_by_sm3(), differs="`sm3`"),
    "sm3": Entry(lambda lib: lib.sm3(0.1), moves=(32, 0), joined=(28, 0), differs="`sm3`"),
    "scale_by_rprop": Entry(lambda lib: lib.scale_by_rprop(0.01), differs="`rprop`"),
    "rprop": Entry(lambda lib: lib.rprop(1e-3), moves=(44, 0), joined=(28, 0), differs="`rprop`"),
    "scale_by_optimistic_gradient": Entry(lambda lib: lib.scale_by_optimistic_gradient()),
    "optimistic_gradient_descent": Entry(
        lambda lib: lib.optimistic_gradient_descent(0.01), moves=(32, 4), joined=(20, 0)
    ),
    "optimistic_adam_v2": Entry(lambda lib: lib.optimistic_adam_v2(1e-3), moves=(72, 8), joined=(36, 0)),
    "optimistic_adam": Entry(lambda lib: _quietly(lib.optimistic_adam, 1e-3), moves=(72, 8), joined=(36, 0)),
    "scale_by_distance_over_gradients": Entry(
        lambda lib: lib.scale_by_distance_over_gradients(1e-2), differs="`scale_by_distance_over_gradients`"
    ),
    "scale_by_polyak": Entry(lambda lib: lib.scale_by_polyak(eps=0.1)),
    "scale_by_polyak plus": Entry(lambda lib: lib.scale_by_polyak(variant="sps+")),
    "polyak_sgd": Entry(lambda lib: lib.polyak_sgd(), moves=(16, 0), joined=(16, 0)),
    # methods entry by entry that Optax lacks
    "reduce_variance": Entry(lambda lib: lib.reduce_variance(0.25, 0.5)),
    "reduce_variance exact": Entry(lambda lib: lib.reduce_variance(0.25, 0.5, 2.0, exact=True, from_zero=True)),
    "mars": Entry(lambda lib: lib.mars(1e-3, weight_decay=0.01), moves=(72, 4), joined=(56, 4)),
    "scale_by_laprop": Entry(lambda lib: lib.scale_by_laprop()),
    "scale_by_laprop centered": Entry(lambda lib: lib.scale_by_laprop(amsgrad=True, centered=True, weight=0.5)),
    "laprop": Entry(lambda lib: lib.laprop(1e-3, weight_decay=0.01), moves=(40, 0), joined=(28, 0)),
    "scale_by_tiger": Entry(lambda lib: lib.scale_by_tiger()),
    "tiger masked": Entry(lambda lib: lib.tiger(1e-3, vectors_mask="bias$", rows_mask="kernel$", steps=2)),
    "signed_by_gradient": Entry(lambda lib: lib.signed_by_gradient(lib.trace(0.9))),
    "grams": Entry(lambda lib: lib.grams(1e-3, weight_decay=0.01), moves=(44, 0), joined=(28, 0)),
    "scale_by_stable_adam": Entry(lambda lib: lib.scale_by_stable_adam(weight_decay=0.1, threshold=0.5)),
    "stable_adamw": Entry(lambda lib: lib.stable_adamw(1e-3), moves=(64, 8), joined=(52, 8)),
    "adamc": Entry(lambda lib: lib.adamc(1e-3, 2e-3, weight_decay=0.01), moves=(40, 0), joined=(28, 0)),
    "scale_by_nadam": Entry(lambda lib: lib.scale_by_nadam(constant_mean=True)),
    "nadam rising": Entry(lambda lib: lib.nadam(1e-3, momentum_decay=0.004)),
    "tangential": Entry(lambda lib: lib.tangential(lib.trace(0.9), 0.1, delta=1.0)),
    "adamp": Entry(lambda lib: lib.adamp(1e-3, weight_decay=0.01), moves=(72, 4), joined=(76, 8)),
    "sgdp": Entry(lambda lib: lib.sgdp(0.01, 0.9, weight_decay=0.01), moves=(48, 0), joined=(48, 0)),
    "scale_by_qhm": Entry(lambda lib: lib.scale_by_qhm()),
    "qhm": Entry(lambda lib: lib.qhm(0.1), moves=(28, 0), joined=(20, 0)),
    "scale_by_qhadam": Entry(lambda lib: lib.scale_by_qhadam(nu2=0.9)),
    "qhadam": Entry(lambda lib: lib.qhadam(1e-3, weight_decay=0.01), moves=(44, 0), joined=(28, 0)),
    "aggregated_trace": Entry(lambda lib: lib.aggregated_trace((0.0, 0.9))),
    "aggmo": Entry(lambda lib: lib.aggmo(0.01), moves=(56, 0), joined=(36, 0)),
    "scale_by_adamod": Entry(lambda lib: lib.scale_by_adamod(corrected_rate=True)),
    "adamod": Entry(lambda lib: lib.adamod(1e-3, weight_decay=0.01), moves=(64, 4), joined=(36, 0)),
    "scale_by_adabound": Entry(lambda lib: lib.scale_by_adabound(amsbound=True)),
    "adabound": Entry(lambda lib: lib.adabound(1e-3), moves=(40, 0), joined=(28, 0)),
    "scale_by_diffgrad": Entry(lambda lib: lib.scale_by_diffgrad()),
    "diffgrad": Entry(lambda lib: lib.diffgrad(1e-3, weight_decay=0.01), moves=(64, 4), joined=(36, 0)),
    # methods of optax.contrib that find their own rate, and others
    "contrib.prodigy": Entry(lambda lib: lib.contrib.prodigy(), moves=(68, 0), joined=(56, 0)),
    "scale_by_prodigy": Entry(
        lambda lib: lib.scale_by_prodigy(0.5, weight_decay=0.1, safeguard_warmup=True),
        theirs=lambda optax: optax.contrib.prodigy(0.5, weight_decay=0.1, safeguard_warmup=True),
    ),
    "contrib.adopt": Entry(lambda lib: lib.contrib.adopt(1e-3), moves=(48, 4), joined=(28, 0)),
    "contrib.adopt nesterov": Entry(lambda lib: lib.contrib.adopt(1e-3, nesterov=True, use_clipping=False)),
    "contrib.scale_by_adopt": Entry(lambda lib: lib.contrib.scale_by_adopt()),
    "contrib.ademamix": Entry(lambda lib: lib.contrib.ademamix(1e-3, weight_decay=0.01), moves=(56, 0), joined=(36, 0)),
    "contrib.scale_by_ademamix": Entry(lambda lib: lib.contrib.scale_by_ademamix()),
    "contrib.simplified_ademamix": Entry(
        lambda lib: lib.contrib.simplified_ademamix(1e-3, alpha=0.5, weight_decay=0.01), moves=(44, 0), joined=(28, 0)
    ),
    "contrib.scale_by_simplified_ademamix": Entry(lambda lib: lib.contrib.scale_by_simplified_ademamix()),
    "contrib.dog": Entry(lambda lib: lib.contrib.dog(weight_decay=0.01), moves=(36, 4), joined=(28, 0)),
    "contrib.dog fast": Entry(lambda lib: lib.contrib.dog(0.5, ("learning_rate", 0.1))),
    "scale_by_dog": Entry(
        lambda lib: lib.scale_by_dog(("distance", 0.1)),
        theirs=lambda optax: optax.contrib._dog.scale_by_dog(("distance", 0.1)),
    ),
    "contrib.dowg": Entry(lambda lib: lib.contrib.dowg(weight_decay=0.01), moves=(36, 4), joined=(28, 0)),
    "scale_by_dowg": Entry(
        lambda lib: lib.scale_by_dowg(0.1), theirs=lambda optax: optax.contrib._dog.scale_by_dowg(0.1)
    ),
    "contrib.dadapt_adamw": Entry(lambda lib: lib.contrib.dadapt_adamw(), moves=(86, 9), joined=(50, 1)),
    "scale_by_dadapt_adamw": Entry(
        lambda lib: lib.scale_by_dadapt_adamw(0.5, weight_decay=0.1, estim_lr0=0.01),
        theirs=lambda optax: optax.contrib.dadapt_adamw(0.5, weight_decay=0.1, estim_lr0=0.01),
    ),
    "contrib.madgrad": Entry(lambda lib: lib.contrib.madgrad(0.01, weight_decay=1e-4), moves=(52, 0), joined=(32, 0)),
    "contrib.scale_by_madgrad": Entry(lambda lib: lib.contrib.scale_by_madgrad(0.1)),
    "contrib.acprop": Entry(lambda lib: lib.contrib.acprop(1e-3, weight_decay=0.01), moves=(60, 8), joined=(28, 0)),
    "contrib.scale_by_acprop": Entry(lambda lib: lib.contrib.scale_by_acprop()),
    "contrib.cocob": Entry(lambda lib: lib.contrib.cocob(weight_decay=0.01), moves=(116, 4), joined=(48, 0)),
    "contrib.scale_by_cocob": Entry(lambda lib: lib.contrib.scale_by_cocob()),
    "contrib.hutchinson_estimator_diag_hessian": Entry(
        lambda lib: lib.contrib.hutchinson_estimator_diag_hessian(), differs="`hutchinson_estimator_diag_hessian`"
    ),
    "contrib.sophia": Entry(lambda lib: lib.contrib.sophia(0.01), differs="`hutchinson_estimator_diag_hessian`"),
    "contrib.sophia squares": Entry(
        lambda lib: lib.contrib.sophia(0.01, update_interval=3, hessian_diagonal_fn=lib.stateless(_squares)),
        moves=(48, 4),
        joined=(44, 4),
    ),
    "scale_by_sophia": Entry(
        lambda lib: lib.scale_by_sophia(clip_threshold=None, eps=0.1, hessian_diagonal_fn=lib.stateless(_squares)),
        theirs=lambda optax: optax.contrib._sophia.scale_by_sophia(
            clip_threshold=None, eps=0.1, hessian_diagonal_fn=optax.stateless(_squares)
        ),
    ),
    "contrib.momo": Entry(lambda lib: lib.contrib.momo(), moves=(39, 1.5), joined=(35, 1.5)),
    "contrib.momo adapted": Entry(
        lambda lib: lib.contrib.momo(0.5, 0.9, -5.0, 0.1, adapt_lower_bound=True),
        differs="`momo`, `momo_adam` with decay",
    ),
    "momo unbiased": Entry(lambda lib: lib.momo(0.5, 0.9, bias_correction=True)),
    "contrib.momo_adam": Entry(lambda lib: lib.contrib.momo_adam(), moves=(67, 5.5), joined=(47, 1.5)),
    "contrib.momo_adam adapted": Entry(
        lambda lib: lib.contrib.momo_adam(0.1, lower_bound=-5.0, weight_decay=0.1, adapt_lower_bound=True),
        differs="`momo`, `momo_adam` with decay",
    ),
    "momo_adam undivided": Entry(lambda lib: lib.momo_adam(0.1, weight_decay=0.1, divide=False)),
    "contrib.mechanize": Entry(
        lambda lib: lib.contrib.mechanize(lib.sgd(1.0), s_init=0.1), moves=(56, 6), joined=(36, 2)
    ),
    "contrib.mechanize adamw": Entry(lambda lib: lib.contrib.mechanize(lib.adamw(1.0), s_init=0.1, num_betas=3)),
    "contrib.schedule_free": Entry(lambda lib: lib.contrib.schedule_free(lib.adam(1e-2, b1=0.0), 1e-2, 0.5, 1.0)),
    "contrib.schedule_free_sgd": Entry(
        lambda lib: lib.contrib.schedule_free_sgd(0.1, weight_decay=0.01), moves=(32, 0), joined=(20, 0)
    ),
    "contrib.schedule_free_adamw": Entry(
        lambda lib: lib.contrib.schedule_free_adamw(1e-3, weight_decay=0.01), moves=(56, 4), joined=(28, 0)
    ),
    "schedule_free_with_mean": Entry(
        lambda lib: lib.schedule_free_with_mean(lib.sgd(0.1), 0.1, 0.5, 1.0, r=1.0, at_z=True)
    ),
    "schedule_free_adamw storing": Entry(
        lambda lib: lib.schedule_free_adamw(1e-3, 3, r=2.0, inner_momentum=0.9, store_x=True, one_rate=True)
    ),
    "schedule_free_adamw paper": Entry(lambda lib: lib.schedule_free_adamw(0.01, b2=0.9, correct_rate=True)),
    "schedule_free_radam": Entry(
        lambda lib: lib.schedule_free_radam(0.01, b2=0.9, silent_sgd_phase=False), moves=(64, 4), joined=(28, 0)
    ),
    "schedule_free_plus": Entry(
        lambda lib: lib.schedule_free_plus(0.1, weight_decay=0.1, r=1.0, polyak_beta=0.5, sf_b1_anneal_steps=3),
        moves=(86, 1),
        joined=(58, 1),
    ),
    "scale_by_trusted_rms": Entry(lambda lib: lib.scale_by_trusted_rms(0.9, bias_correction=True)),
    "contrib.reduce_on_plateau": Entry(lambda lib: lib.contrib.reduce_on_plateau(0.5, 2, 0.1)),
    "contrib.reduce_on_plateau all": Entry(lambda lib: lib.contrib.reduce_on_plateau(0.5, 1, 0.5, 0.1, 1, 2, 0.2)),
    "contrib.normalize": Entry(lambda lib: lib.contrib.normalize()),
    "contrib.sam": Entry(lambda lib: _sam(lib), theirs=_without_extra(_sam)),
    "contrib.sam remembering": Entry(
        lambda lib: _sam(lib, sync_period=3, reset_state=False),
        theirs=_without_extra(lambda optax: _sam(optax, sync_period=3, reset_state=False)),
    ),
    "contrib.sam opaque": Entry(
        lambda lib: _sam(lib, sync_period=3, opaque_mode=True),
        theirs=_without_extra(lambda optax: _sam(optax, sync_period=3, opaque_mode=True)),
    ),
    # methods of the gradients of examples
    "contrib.differentially_private_aggregate": Entry(
        lambda lib: _of_examples(lib, lib.contrib.differentially_private_aggregate(2.0, 0.0, key=0))
    ),
    "contrib.differentially_private_aggregate noisy": Entry(
        lambda lib: _of_examples(lib, lib.contrib.differentially_private_aggregate(2.0, 0.5, key=0)),
        differs="`differentially_private_aggregate`",
    ),
    "contrib.dpsgd": Entry(
        lambda lib: _of_examples(lib, _quietly(lib.contrib.dpsgd, 0.1, 2.0, 0.0, 0, 0.9, True))  # theirs: of `seed`
    ),
    "contrib.split_real_and_imaginary": Entry(lambda lib: lib.contrib.split_real_and_imaginary(lib.adam(1e-2))),
    # with a "+", since their names are not flat
    "examples+mean": Entry(lambda lib: _averaging(lib, 1), theirs=_plain(lambda optax: _averaging(optax, 1))),
    "examples+accumulated": Entry(lambda lib: _averaging(lib, 2), theirs=_plain(lambda optax: _averaging(optax, 2))),
    "examples+variance": Entry(
        lambda lib: _measuring_variance(lib, 1), theirs=_plain(lambda optax: _measuring_variance(optax, 1))
    ),
    "examples+variance accumulated": Entry(
        lambda lib: _measuring_variance(lib, 3), theirs=_plain(lambda optax: _measuring_variance(optax, 3))
    ),
    # methods of matrices
    "contrib.muon": Entry(
        lambda lib: lib.contrib.muon(1e-3),
        moves=(229.3, 14),
        joined=(229.3, 14),  # all five steps: the Gram form of a long matrix is no loop
        theirs=lambda optax: optax.contrib.muon(
            1e-3, muon_weight_dimension_numbers=lambda params: _matrices(params, optax.contrib.MuonDimensionNumbers)
        ),
    ),
    "contrib.muon all": Entry(
        lambda lib: _muon_all(lib, _stacks),
        theirs=lambda optax: _muon_all(optax, lambda params: _stacks(params, optax.contrib.MuonDimensionNumbers)),
    ),
    "normuon": Entry(lambda lib: lib.normuon(1e-3, weight_dimension_numbers=_stacks)),
    "normuon spectral": Entry(
        lambda lib: lib.normuon(
            1e-3,
            lib.trace(0.95),
            orthogonalizer=lib.newton_schulz("polar_express", 3, gram=True),
            shape_rule="spectral",
        )
    ),
    "adamuon": Entry(lambda lib: lib.adamuon(1e-3, weight_dimension_numbers=_stacks)),
    "equalize_neurons": Entry(lambda lib: lib.masked(lib.equalize_neurons(_stacks), _is_matrix)),
    "normalize_neurons": Entry(
        lambda lib: lib.masked(lib.normalize_neurons(weight_dimension_numbers=_stacks), _is_matrix)
    ),
    "equalize_matrices": Entry(lambda lib: lib.masked(lib.equalize_matrices(_stacks, 0.2, eps=1e-8), _is_matrix)),
    "orthogonalize": Entry(lambda lib: lib.masked(lib.orthogonalize(lib.newton_schulz("dion", 3)), _is_matrix)),
    "matrices_and_others": Entry(
        lambda lib: lib.matrices_and_others(
            lib.chain(lib.equalize_neurons(), lib.orthogonalize(), lib.equalize_matrices(), lib.scale(-1e-3)),
            lib.sgd(1e-3),
        )
    ),
    "contrib.scale_by_muon": Entry(
        lambda lib: lib.masked(lib.contrib.scale_by_muon(preconditioning="schatten"), _is_matrix),
        theirs=lambda optax: optax.masked(
            optax.contrib.scale_by_muon(
                preconditioning="schatten",
                weight_dimension_numbers=lambda params: _stacks(params, optax.contrib.MuonDimensionNumbers),
            ),
            _is_matrix,
        ),
    ),
    "scale_by_shape": Entry(
        lambda lib: lib.masked(lib.scale_by_shape(), _is_matrix),
        theirs=lambda optax: optax.masked(
            optax.contrib._muon.scale_by_shape(lambda params: _stacks(params, optax.contrib.MuonDimensionNumbers)),
            _is_matrix,
        ),
    ),
    "normalize_matrices": Entry(lambda lib: lib.normalize_matrices()),
    "relative_update": Entry(lambda lib: lib.relative_update(0.35)),
    "relative_update output": Entry(lambda lib: lib.relative_update(1.0, 1.0, "output")),
    "keep_norm": Entry(lambda lib: lib.masked(lib.keep_norm(), _is_matrix)),
    "radial_brake": Entry(lambda lib: lib.radial_brake()),
    "radial_brake norm": Entry(lambda lib: lib.radial_brake(0.25, 0.75, "norm")),
    "decay_weights": Entry(lambda lib: lib.decay_weights(0.1, 0.1)),
    "decay_weights cautious": Entry(lambda lib: lib.decay_weights(0.1, 0.1, cautious=True, of="old")),
    "decay_weights squared": Entry(lambda lib: lib.decay_weights(0.1, 0.1, coupling="squared", peak_learning_rate=0.5)),
    "hyperball": Entry(lambda lib: lib.masked(lib.hyperball(lib.scale_by_adam(), 0.018), _is_matrix)),
    "scale_by_lmo": Entry(lambda lib: lib.scale_by_lmo()),
    "scale_by_lmo sign": Entry(lambda lib: lib.scale_by_lmo("sign")),
    "scion": Entry(lambda lib: lib.scion(1e-3)),
    "scion rownorm": Entry(lambda lib: lib.masked(lib.scion(1e-3, 0.9, "rownorm", 3.0, constrained=False), _is_matrix)),
    "scale_by_dion": Entry(lambda lib: lib.masked(lib.scale_by_dion(2), _is_matrix)),
    "dion": Entry(lambda lib: lib.dion(1e-3, rank_fraction=0.5, weight_dimension_numbers=_stacks)),
    "scale_by_dion2": Entry(lambda lib: lib.masked(lib.scale_by_dion2(0.5, b2=0.9), _is_matrix)),
    "dion2": Entry(lambda lib: lib.dion2(1e-3, 0.5, weight_dimension_numbers=_stacks)),
    "nordion2": Entry(lambda lib: lib.nordion2(1e-3)),
    # "masked" as above
    "qk_clip masked": Entry(lambda lib: _Given(lib.qk_clip(0.5, query="kernel$", key="bias$", fused=True), _logits)),
    # the first R is diagonal: Adam's eps must be larger than the rounding beside it
    "scale_by_galore both": Entry(lambda lib: lib.scale_by_galore(2, 3, 1.0, lib.scale_by_adam(eps=0.1), side="both")),
    "galore shorter": Entry(lambda lib: lib.galore(1e-3, 3, 2, 0.25, side="shorter")),
    "galore random": Entry(lambda lib: lib.galore(1e-3, 2, 3, weight_decay=0.01, projection="random")),
    "scale_by_fira": Entry(lambda lib: lib.scale_by_fira(2, scale=0.5)),
    "fira": Entry(lambda lib: lib.fira(1e-3, 2, weight_decay=0.01), moves=(58.5, 12), joined=(54.5, 12)),
    "fira tensor": Entry(lambda lib: lib.fira(1e-3, 2, scale_type="tensor", norm_growth=None, side="longer")),
    "scale_by_apollo": Entry(lambda lib: lib.scale_by_apollo(2, 3)),
    "apollo": Entry(lambda lib: lib.apollo(1e-3, 3, weight_decay=0.01), moves=(29, 4), joined=(29.4, 4)),
    "apollo svd": Entry(lambda lib: lib.apollo(1e-3, 2, projection="svd", norm_growth=None, side="columns")),
    "apollo_mini": Entry(lambda lib: lib.apollo_mini(1e-3, scale_front=True), moves=(28.4, 4), joined=(28.5, 4)),
    "contrib.scale_by_galore": Entry(lambda lib: lib.contrib.scale_by_galore(2), differs="`galore`"),
    "contrib.galore": Entry(
        lambda lib: lib.contrib.galore(1e-3, weight_decay=0.01), moves=(51, 10), joined=(48, 10), differs="`galore`"
    ),
    "contrib.galore lion": Entry(
        lambda lib: lib.contrib.galore(1e-3, 3, 2, 0.25, lib.scale_by_lion(), 0.01), differs="`galore`"
    ),
    "graft": Entry(lambda lib: lib.graft(lib.scale_by_adam(), lib.sgd(0.1, 0.9))),
    # what changes the direction of any method, or averages its parameters
    "cautious": Entry(lambda lib: lib.cautious(lib.scale_by_adam())),
    "cautious count": Entry(
        lambda lib: lib.cautious(lib.adamw(1e-3), rescale="count", factor=0.25, compare="mu", of_steps=True)
    ),
    "cautious_adamw": Entry(lambda lib: lib.cautious_adamw(1e-3, weight_decay=0.01), moves=(68, 8), joined=(48, 4)),
    "cautious_lion": Entry(lambda lib: lib.cautious_lion(1e-4, weight_decay=0.01), moves=(44, 4), joined=(36, 4)),
    "adamw squared": Entry(
        lambda lib: lib.adamw(1e-3, decay_coupling="squared", cautious_decay=True), moves=(40, 0), joined=(28, 0)
    ),
    "orthogonal_gradients": Entry(lambda lib: lib.orthogonal_gradients()),
    "orthogonal_gradients shorter": Entry(lambda lib: lib.orthogonal_gradients(rescale=False)),
    "average_params": Entry(
        lambda lib: lib.average_params(lib.adamw(1e-3), 0.999, debias=True, share=0.6), moves=(60, 4), joined=(36, 0)
    ),
    "average_params mean": Entry(lambda lib: lib.average_params(lib.sgd(1e-2), every=2)),
    "lawa": Entry(lambda lib: lib.lawa(lib.adamw(1e-3), 2, 3), moves=(68, 8), joined=(56, 8)),
    "compress_state": Entry(
        lambda lib: lib.compress_state(lib.adamw(1e-3), min_size=0), moves=(60, 9), joined=(64.4, 12)
    ),
    "compress_state of floats": Entry(
        lambda lib: lib.compress_state(
            lib.chain(lib.clip_by_global_norm(1.0), lib.schedule_free_adamw(1e-2)),
            squares=lib.storage.float8("squares"),
            points=lib.storage.corrected(),
            slots={"mu": lib.storage.bfloat16()},
            min_size=0,
        )
    ),
    "master_weights": Entry(lambda lib: lib.master_weights(lib.adamw(1e-3))),
    "round_stochastically": Entry(lambda lib: lib.round_stochastically(lib.adamw(1e-3))),
    "split_weights": Entry(lambda lib: lib.split_weights(lib.adamw(1e-3))),
    "ema_nesterov": Entry(lambda lib: lib.ema_nesterov(lib.adamw(1e-3)), moves=(68, 4), joined=(36, 0)),
    "normalize_adaptive": Entry(lambda lib: lib.normalize_adaptive()),
    "asam": Entry(lambda lib: lib.asam(lib.sgd(1e-2), 0.1)),
    "gsam": Entry(lambda lib: lib.gsam(lib.sgd(1e-2))),
    "minus_surrogate_gap": Entry(lambda lib: lib.sam(lib.minus_surrogate_gap(), lib.sgd(0.01), opaque_mode=True)),
    "scale_by_shampoo": Entry(lambda lib: lib.scale_by_shampoo(eps=0.1)),  # beyond the rounding of a factor of low rank
    "scale_by_shampoo grafted blocks": Entry(
        lambda lib: lib.scale_by_shampoo(
            eps=0.1, block_size=4, b3=0.5, frequency=2, merge_dims="last", graft="rmsprop_normalized"
        )
    ),
    "scale_by_shampoo newton": Entry(
        lambda lib: lib.scale_by_shampoo(None, 1.0, 0.1, root="newton", sides="inputs", product_dtype="bfloat16")
    ),
    "shampoo": Entry(lambda lib: lib.shampoo(1e-2, eps=0.1, weight_decay=0.01, momentum=0.9, graft="adam", start=2)),
    # A first gradient of 4 x 6 says nothing of two directions of its long side: a rounding decides where they lie. So
    # bases of the short side alone.
    "in_eigenbasis": Entry(lambda lib: lib.in_eigenbasis(lib.scale_by_adam(), max_dim=4)),
    "scale_by_eigenvalues kl": Entry(
        lambda lib: lib.in_eigenbasis(
            lib.chain(lib.ema(0.9), lib.scale_by_eigenvalues()),
            *(0.9, 2, None, 4),
            statistics="kl",
            decomposition="eigh",
            refresh="before",
            first="gradient",
            sort=False,
        )
    ),
    "scale_by_soap": Entry(lambda lib: lib.scale_by_soap(precondition_frequency=2, max_precond_dim=4)),
    "soap": Entry(lambda lib: lib.soap(1e-3, max_precond_dim=4)),
    "soap merged": Entry(
        lambda lib: lib.soap(1e-3, max_precond_dim=5, merge_dims=True, normalize_grads=True, correct_bias=False)
    ),
    "kl_soap": Entry(lambda lib: lib.kl_soap(1e-3, max_precond_dim=4)),
    "scale_by_kl_shampoo": Entry(lambda lib: lib.scale_by_kl_shampoo(max_precond_dim=4)),
    "kl_shampoo": Entry(lambda lib: lib.kl_shampoo(1e-3, max_precond_dim=4)),
    "scale_by_soap_muon": Entry(lambda lib: lib.masked(lib.scale_by_soap_muon(max_precond_dim=4), _is_matrix)),
    "soap_muon": Entry(lambda lib: lib.soap_muon(1e-3, max_precond_dim=4, adam_learning_rate=1e-4)),
    "scale_by_filtered_adam": Entry(lambda lib: lib.scale_by_filtered_adam(b3=0.5)),
    "eshampoo": Entry(lambda lib: lib.eshampoo(1e-3, frequency=2, max_dim=4, vectors=False)),
    "scale_by_psgd_kron": Entry(lambda lib: lib.scale_by_psgd_kron()),
    "scale_by_psgd_kron rarely": Entry(
        lambda lib: lib.scale_by_psgd_kron(
            0.5, 0.5, memory_save_mode="one_diag", momentum_into_precond_update=False, precond_dtype="bfloat16"
        )
    ),
    "psgd_kron": Entry(lambda lib: lib.psgd_kron(1e-3, weight_decay=0.01)),
    "scale_by_psgd_whiten": Entry(lambda lib: lib.scale_by_psgd_whiten()),
    "scale_by_psgd_whiten quadratic": Entry(
        lambda lib: lib.scale_by_psgd_whiten(
            momentum=0.9, dq="QUAD4P", update_preconditioner_first=False, whiten_grad=False
        )
    ),
    "psgd_whiten": Entry(lambda lib: lib.psgd_whiten(1e-3, momentum=0.9, weight_decay=0.01)),
    # methods that send less, of one device
    "majority_sign": Entry(lambda lib: lib.majority_sign()),
    "powersgd": Entry(lambda lib: lib.powersgd(2)),
    "top_k": Entry(lambda lib: lib.top_k(0.3)),
    "local_updates": Entry(lambda lib: lib.local_updates(lib.adam(1e-2), 2)),
    "clip+adamw": Entry(
        lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(1e-3, weight_decay=0.01)),
        moves=(44, 0),
        joined=(32, 0),
    ),
}

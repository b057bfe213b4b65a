"""Every public transformation, once: what the contract is proved for, what is measured, and what Optax is compared in.

A new one is a line here. `tests/test_contract.py` proves every rule of the house for it; `tests/peers` compares it with
Optax, where Optax has it; with `moves`, benchmarks measure it and `tests/benchmarks/test_traffic.py` holds it to that.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Entry(NamedTuple):
    """How a transformation is built, and what is known of it."""

    build: Callable[[Any], Any]  # from a library, gradtx or optax, with the least arguments
    moves: tuple[float, float] | None = None  # a method's bytes accessed and temporary bytes per parameter, on the CPU
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


def _at_odd_steps(step: Any) -> Any:
    return step % 2 == 1


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
    "add_decayed_weights masked": Entry(lambda lib: lib.add_decayed_weights(0.01, mask="kernel$")),
    "add_l1_subgradient": Entry(lambda lib: lib.add_l1_subgradient(0.01)),
    "proximal_l1": Entry(lambda lib: lib.proximal_l1(0.01)),
    "clip": Entry(lambda lib: lib.clip(0.5)),
    "clip_by_global_norm": Entry(lambda lib: lib.clip_by_global_norm(0.5)),
    "clip_by_block_rms": Entry(lambda lib: lib.clip_by_block_rms(0.5)),
    "scale_by_rss": Entry(lambda lib: lib.scale_by_rss()),
    "scale_by_rms": Entry(lambda lib: lib.scale_by_rms()),
    "scale_by_stddev": Entry(lambda lib: lib.scale_by_stddev()),
    "scale_by_adam": Entry(lambda lib: lib.scale_by_adam()),
    "scale_by_adamax": Entry(lambda lib: lib.scale_by_adamax()),
    "scale_by_belief": Entry(lambda lib: lib.scale_by_belief()),
    "scale_by_amsgrad": Entry(lambda lib: lib.scale_by_amsgrad()),
    "scale_by_radam": Entry(lambda lib: lib.scale_by_radam()),
    "scale_by_lion": Entry(lambda lib: lib.scale_by_lion()),
    "scale_by_newton": Entry(lambda lib: lib.scale_by_newton()),
    # with little decay a scalar parameter, whose update is as long as it is, would land on 0 up to rounding
    "scale_by_lamb": Entry(lambda lib: lib.scale_by_lamb(weight_decay=10.0)),
    "scale_by_lars": Entry(lambda lib: lib.scale_by_lars(0.01)),
    "scale_by_factored_rms": Entry(lambda lib: lib.scale_by_factored_rms(min_dim_size_to_factor=2)),
    "scale_by_trust_ratio": Entry(lambda lib: lib.scale_by_trust_ratio()),
    "scale_by_param_block_rms": Entry(lambda lib: lib.scale_by_param_block_rms()),
    "scale_by_param_block_rms clipped": Entry(lambda lib: lib.scale_by_param_block_rms(clipping_threshold=0.5)),
    "scale_by_sign": Entry(lambda lib: lib.scale_by_sign()),
    "centralize": Entry(lambda lib: lib.centralize()),
    "add_noise": Entry(lambda lib: lib.add_noise(0.01, 0.55, key=0), differs="`add_noise`"),
    "zero_nans": Entry(lambda lib: lib.zero_nans()),
    "set_to_zero": Entry(lambda lib: lib.set_to_zero()),
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
    # methods
    "sgd plain": Entry(lambda lib: lib.sgd(0.1)),
    "sgd": Entry(lambda lib: lib.sgd(0.01, momentum=0.9), moves=(24, 0)),
    "sgd nesterov": Entry(lambda lib: lib.sgd(0.01, momentum=0.9, nesterov=True), moves=(28, 0)),
    "momentum": Entry(
        lambda lib: lib.momentum(0.01, 0.9), moves=(24, 0), theirs=lambda optax: optax.sgd(0.01, momentum=0.9)
    ),
    "momentum velocity": Entry(lambda lib: lib.momentum(0.1, form="velocity")),
    "momentum averaged": Entry(lambda lib: lib.momentum(0.1, form="averaged")),
    "momentum unbiased": Entry(lambda lib: lib.momentum(0.1, form="unbiased")),
    "adagrad": Entry(lambda lib: lib.adagrad(0.01), moves=(28, 0)),
    "rmsprop": Entry(lambda lib: lib.rmsprop(1e-3), moves=(28, 0)),
    "rmsprop centered": Entry(lambda lib: lib.rmsprop(1e-3, centered=True, momentum=0.9), moves=(56, 0)),
    "adam": Entry(lambda lib: lib.adam(1e-3), moves=(40, 0)),
    "adam bfloat16": Entry(lambda lib: lib.adam(0.1, mu_dtype="bfloat16")),
    "adam uncorrected": Entry(lambda lib: lib.adam(0.1, bias_correction=False)),
    "adamw": Entry(lambda lib: lib.adamw(1e-3, weight_decay=0.01), moves=(40, 0)),
    "adamw masked": Entry(lambda lib: lib.adamw(0.1, mask={"dense": {"kernel": True, "bias": False}, "scale": False})),
    "nadam": Entry(lambda lib: lib.nadam(1e-3), moves=(44, 0)),
    "nadamw": Entry(lambda lib: lib.nadamw(1e-3, weight_decay=0.01), moves=(44, 0)),
    "amsgrad": Entry(lambda lib: lib.amsgrad(1e-3), moves=(52, 0)),
    "adabelief": Entry(lambda lib: lib.adabelief(1e-3), moves=(44, 0)),
    "radam": Entry(lambda lib: lib.radam(1e-3), moves=(40, 0)),
    "adamax": Entry(lambda lib: lib.adamax(1e-3), moves=(40, 0)),
    "adamaxw": Entry(lambda lib: lib.adamaxw(1e-3, weight_decay=0.01), moves=(40, 0)),
    "lamb": Entry(lambda lib: lib.lamb(1e-3, weight_decay=0.01), moves=(52, 0)),
    "lars": Entry(lambda lib: lib.lars(0.1, weight_decay=1e-4), moves=(36, 0)),
    "adafactor": Entry(lambda lib: lib.adafactor(0.01, min_dim_size_to_factor=2), moves=(28, 0)),
    "adafactor all": Entry(lambda lib: lib.adafactor(0.1, 2, momentum=0.9, weight_decay_rate=1e-3)),
    "lion": Entry(lambda lib: lib.lion(1e-4, weight_decay=0.1), moves=(28, 0)),
    "newton": Entry(lambda lib: lib.newton()),
    "newton cg": Entry(lambda lib: lib.newton(1.0, 0.1, "cg")),
    "clip+adamw": Entry(
        lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(1e-3, weight_decay=0.01)), moves=(44, 0)
    ),
}

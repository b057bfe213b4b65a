"""Where the semantics agree, the updates are Optax's: both libraries in one process, ten steps and more in float64."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import assert_close, data, run_tx

optax = pytest.importorskip("optax")

# Both sum the same numbers in other orders and multiply by reciprocals where the other divides: some 1e-16 a step,
# larger where nearby numbers are subtracted (radam's average length, a centred square). A term left out, an eps in
# another place or an exponent off by one shows at 1e-8 or more.
TOLERANCE = 1e-11

# Optax raises the step to -0.8 in float32 even where all else is float64: seven digits, of which the root keeps more.
LOOSER = {"adafactor": 1e-7, "adafactor, unfactored": 1e-7, "adafactor, momentum": 1e-7}

SHAPES = {"dense": {"kernel": (4, 3), "bias": (3,)}}

MASK = {"dense": {"kernel": True, "bias": False}}

# The same call in both libraries: positional orders and defaults are part of what is compared.
CALLS = {
    "sgd": lambda lib: lib.sgd(0.1),
    "sgd, momentum": lambda lib: lib.sgd(0.1, 0.9),
    "sgd, nesterov": lambda lib: lib.sgd(0.1, 0.9, True),
    "adagrad": lambda lib: lib.adagrad(0.1, 0.2, 1e-3),
    "rmsprop": lambda lib: lib.rmsprop(0.1, 0.95, 1e-3),
    "rmsprop, eps outside, initial scale": lambda lib: lib.rmsprop(0.1, 0.9, 1e-3, 0.5, False),
    "rmsprop, corrected": lambda lib: lib.rmsprop(0.1, bias_correction=True),
    "rmsprop, centred, momentum": lambda lib: lib.rmsprop(0.1, 0.9, 0.05, centered=True, momentum=0.9, nesterov=True),
    "rmsprop, centred, corrected": lambda lib: lib.rmsprop(0.1, 0.9, 0.05, centered=True, bias_correction=True),
    "adam": lambda lib: lib.adam(0.1),
    "adam, all by position": lambda lib: lib.adam(0.1, 0.8, 0.99, 1e-3, 1e-2),
    "adamw": lambda lib: lib.adamw(0.1, 0.9, 0.999, 1e-8, 0.0, None, 0.3, MASK),
    "adamw, defaults": lambda lib: lib.adamw(0.1),
    "nadam": lambda lib: lib.nadam(0.1),
    "nadamw": lambda lib: lib.nadamw(0.1),
    "amsgrad": lambda lib: lib.amsgrad(0.1, 0.9, 0.5),
    "amsgrad, uncorrected": lambda lib: lib.amsgrad(0.1, b2=0.5, bias_correction_mu=False, bias_correction_nu=False),
    "adabelief": lambda lib: lib.adabelief(0.1, 0.9, 0.99, 1e-3, 1e-4),
    "adabelief, defaults": lambda lib: lib.adabelief(0.1),
    "radam": lambda lib: lib.radam(0.1, 0.9, 0.99, 1e-3, 1e-3, 5.0),
    "radam, nesterov": lambda lib: lib.radam(0.1, nesterov=True),
    "adamax": lambda lib: lib.adamax(0.1, 0.9, 0.8, 1e-3),
    "adamaxw": lambda lib: lib.adamaxw(0.1, 0.9, 0.999, 1e-8, 0.3, MASK),
    "lamb": lambda lib: lib.lamb(0.1, 0.9, 0.999, 1e-3, 1e-3, 0.3, MASK),
    "lars": lambda lib: lib.lars(0.5, 0.3, True, 0.1, 1e-3, True, 0.5, True),
    "adafactor": lambda lib: lib.adafactor(0.1, 3),
    "adafactor, unfactored": lambda lib: lib.adafactor(0.1, 3, 0.7, 0, False, None, factored=False),
    "adafactor, momentum": lambda lib: lib.adafactor(
        0.1, 3, 0.8, 0, True, 0.5, 0.9, jnp.float64, 0.1, 1e-8, True, MASK
    ),
    "lion": lambda lib: lib.lion(0.1, 0.9, 0.99, None, 0.3, MASK),
    "scheduled rate": lambda lib: lib.chain(lib.trace(0.9, True), lib.scale_by_learning_rate(lambda t: 0.1 / (1 + t))),
    "scheduled decay": lambda lib: lib.chain(lib.add_decayed_weights(lambda t: 0.1 / (1 + t)), lib.scale(-0.1)),
    "clipped": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.scale_by_adam(), lib.scale(-0.1)),
    "clipped by element and leaf": lambda lib: lib.chain(lib.clip(1.0), lib.clip_by_block_rms(0.8), lib.scale(-0.1)),
    "centred signs": lambda lib: lib.chain(lib.centralize(), lib.ema(0.9), lib.scale_by_sign(), lib.scale(-0.1)),
    "ema, not debiased": lambda lib: lib.chain(lib.ema(0.9, False), lib.scale(-0.1)),
    "trust ratio": lambda lib: lib.chain(lib.scale_by_trust_ratio(3.0, 0.1, 0.5), lib.scale(-0.1)),
    "parameter scale": lambda lib: lib.chain(lib.scale_by_param_block_rms(0.9), lib.scale(-0.1)),
}


@pytest.mark.parametrize("name", CALLS)
def test_the_same_call_makes_the_same_updates(name):
    params, drift = data(SHAPES)
    with jax.enable_x64(True):
        ours, theirs = CALLS[name](gradtx), CALLS[name](optax)
    got, got_last = run_tx(ours, params, drift, "float64")
    want, want_last = run_tx(theirs, params, drift, "float64")
    tolerance = LOOSER.get(name, TOLERANCE)
    assert_close(got, want, tolerance)
    assert_close(got_last, want_last, tolerance, "the last value")


NAMES = [
    *("adabelief", "adafactor", "adagrad", "adam", "adamax", "adamaxw", "adamw", "amsgrad", "lamb", "lars", "lion"),
    *("nadam", "nadamw", "radam", "rmsprop", "sgd", "add_decayed_weights", "centralize", "clip", "clip_by_block_rms"),
    *("clip_by_global_norm", "ema", "scale", "scale_by_adam", "scale_by_adamax", "scale_by_amsgrad"),
    *("scale_by_belief", "scale_by_factored_rms", "scale_by_learning_rate", "scale_by_lion"),
    *("scale_by_param_block_rms", "scale_by_radam", "scale_by_rms", "scale_by_rss", "scale_by_schedule"),
    *("scale_by_sign", "scale_by_stddev", "scale_by_trust_ratio", "trace", "zero_nans"),
]


@pytest.mark.parametrize("name", NAMES)
def test_arguments_have_optaxs_names_order_and_defaults(name):
    """Those that Optax takes by position; ours may take more behind them."""

    def positional(function):
        parameters = inspect.signature(function).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    want = positional(getattr(optax, name))
    got = positional(getattr(gradtx, name))[: len(want)]
    if name == "scale_by_learning_rate":  # Optax's default is None, which leaves the updates as they are
        got, want = [n for n, _ in got], [n for n, _ in want]
    if name == "scale_by_factored_rms":  # the last default is a function, each library's own
        got[-1], want[-1] = got[-1][0], want[-1][0]
    assert got == want


CORES = {
    "trace": (0.9,),
    "ema": (0.9,),
    **{f"scale_by_{name}": () for name in ("adam", "adamax", "amsgrad", "belief", "factored_rms", "lion", "radam")},
    **{f"scale_by_{name}": () for name in ("rms", "rss", "stddev")},
    "zero_nans": (),
}


@pytest.mark.parametrize("name", CORES)
def test_states_have_optaxs_fields(name):
    p = jnp.ones(2)
    ours, theirs = (getattr(lib, name)(*CORES[name]).init(p) for lib in (gradtx, optax))
    assert set(theirs._fields) <= set(ours._fields)


# First three updates of the first of p = [1, 2] under g_t = t [0.1, -0.2] at a rate of 0.01, as Optax 0.2.9 makes them.
FIRST_UPDATES = {
    "adam": [-0.009999933, -0.009651722, -0.009579977],
    "nadam": [-0.01473674, -0.01274656, -0.01191727],
    "adamw": [-0.01000093],
    "lamb": [-0.01581135],
    "lars": [-1e-05, -1.9e-05, -2.71e-05],
    "lion": [-0.01001],
    "adafactor": [-0.01581139],
    "adabelief": [-0.01111104],
    "radam": [-0.0009999998],
    "rmsprop": [-0.03162261],
}


@pytest.mark.parametrize("name", FIRST_UPDATES)
def test_the_first_updates_in_float32_are_the_ones_on_record(name):
    """With defaults; the record keeps float32's seven digits, Optax's own rounding error among them."""
    tx = getattr(gradtx, name)(1e-2)
    p = jnp.array([1.0, 2.0])
    state, seen = tx.init(p), []
    for t in range(1, 1 + len(FIRST_UPDATES[name])):
        updates, state = tx.update(t * jnp.array([0.1, -0.2]), state, p)
        seen.append(float(updates[0]))
        p = gradtx.apply_updates(p, updates)
    # 1 - 0.999^t loses five of float32's seven digits in Optax, and half of that error is left after the root.
    np.testing.assert_allclose(seen, FIRST_UPDATES[name], rtol=3e-5)

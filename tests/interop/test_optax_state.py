"""A run that Optax began goes on with gradtx, and back, as if nothing had happened."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from gradtx import interop

from ..peers.test_updates import LOOSER as IN_FLOAT32
from ..peers.test_updates import SHARED, build

PARAMS = {
    "dense": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)},
    "scale": jnp.float32(2.0),
}
MASK = {"dense": {"kernel": True, "bias": False}, "scale": False}
LABELS = {"dense": {"kernel": "a", "bias": "b"}, "scale": "b"}
RATE = lambda lib: lib.cosine_decay_schedule(0.1, 40)


def steps_of(tx):
    return getattr(tx, "gradient_transformation", lambda: tx)()


RUNS = {
    "adam": lambda lib: lib.adam(0.1),
    "adamw, scheduled": lambda lib: lib.adamw(RATE(lib)),
    "adamw, masked": lambda lib: lib.adamw(0.1, weight_decay=0.1, mask=MASK),
    "sgd": lambda lib: lib.sgd(RATE(lib)),
    "sgd, momentum": lambda lib: lib.sgd(0.1, momentum=0.9, nesterov=True),
    "lamb": lambda lib: lib.lamb(0.1),
    "lars": lambda lib: lib.lars(0.1),
    "adafactor": lambda lib: lib.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
    "lion": lambda lib: lib.lion(0.1),
    "rmsprop": lambda lib: lib.rmsprop(0.1, momentum=0.9),
    "rmsprop, centered": lambda lib: lib.rmsprop(0.1, centered=True, eps=1e-3),
    "muon": lambda lib: lib.contrib.muon(RATE(lib), adam_learning_rate=0.01),
    "muon, a triple a step": lambda lib: lib.contrib.muon(0.1, "dion", weight_decay=0.1),
    "MultiSteps": lambda lib: lib.MultiSteps(lib.adamw(RATE(lib)), 2),
    "MultiSteps, in a chain": lambda lib: lib.chain(
        lib.clip_by_global_norm(1.0), steps_of(lib.MultiSteps(lib.sgd(RATE(lib), 0.9), 4, use_grad_mean=False))
    ),
    "MultiSteps, skipping": lambda lib: lib.MultiSteps(
        lib.adam(0.1), lambda step: 2 + step % 2, should_skip_update_fn=lib.skip_not_finite
    ),
    "injected": lambda lib: lib.inject_hyperparams(lib.adamw)(0.1, weight_decay=RATE(lib)),
    "injected, several": lambda lib: lib.chain(
        lib.inject_hyperparams(lib.clip_by_global_norm)(RATE(lib)), lib.inject_hyperparams(lib.sgd)(RATE(lib), 0.9)
    ),
    "injected, in MultiSteps": lambda lib: lib.MultiSteps(lib.inject_hyperparams(lib.adam)(RATE(lib)), 3),
    "injected, accumulating": lambda lib: lib.inject_hyperparams(
        lambda learning_rate: steps_of(lib.MultiSteps(lib.adam(learning_rate), 3))
    )(learning_rate=RATE(lib)),
    "clip and adamw": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(RATE(lib))),
    "decay, scheduled": lambda lib: lib.chain(lib.trace(0.9), lib.add_decayed_weights(RATE(lib)), lib.scale(-0.1)),
    "two averages": lambda lib: lib.chain(
        lib.trace(0.9), lib.ema(0.8), lib.trace(0.5), lib.scale_by_learning_rate(0.1)
    ),
    "named": lambda lib: lib.named_chain(("z", lib.trace(0.9)), ("a", lib.trace(0.5)), ("m", lib.adam(RATE(lib)))),
    "masked": lambda lib: lib.chain(lib.masked(lib.adam(RATE(lib)), MASK), lib.trace(0.5)),
    "masked, in another order": lambda lib: lib.MultiSteps(
        lib.named_chain(("z", lib.masked(lib.trace(0.9), MASK)), ("a", lib.trace(0.5))), 2
    ),
    "masked both ways": lambda lib: lib.chain(
        lib.masked(lib.adam(0.1), MASK), lib.masked(lib.adam(0.2), jax.tree.map(lambda keep: not keep, MASK))
    ),
    "partition": lambda lib: lib.partition({"a": lib.adam(RATE(lib)), "b": lib.sgd(RATE(lib), 0.9)}, LABELS),
    "multi_transform, frozen": lambda lib: lib.chain(
        lib.clip_by_global_norm(1.0), lib.multi_transform({"a": lib.lion(0.1), "b": lib.set_to_zero()}, LABELS)
    ),
    "selective_transform": lambda lib: lib.selective_transform(lib.adam(RATE(lib)), freeze_mask=MASK),
    "apply_if_finite": lambda lib: lib.apply_if_finite(lib.chain(lib.zero_nans(), lib.adamw(RATE(lib))), 3),
    "at some steps": lambda lib: lib.conditionally_transform(lib.adam(RATE(lib)), lambda step: step % 3 > 0),
    "every third": lambda lib: lib.chain(lib.apply_every(3), lib.scale_by_learning_rate(RATE(lib))),
    "yogi": lambda lib: lib.yogi(0.1),
    "adan": lambda lib: lib.adan(RATE(lib)),
    "ademamix": lambda lib: lib.contrib.ademamix(RATE(lib)),
    "schedule-free": lambda lib: lib.contrib.schedule_free_adamw(RATE(lib)),
    "mechanized": lambda lib: lib.contrib.mechanize(lib.adamw(RATE(lib))),
    "sam": lambda lib: lib.contrib.sam(lib.sgd(RATE(lib), 0.9), lib.sgd(0.1), sync_period=2),
    "galore": lambda lib: lib.contrib.galore(0.1, 2, weight_decay=0.1),
    "plateau": lambda lib: lib.chain(
        lib.adam(RATE(lib)), lib.contrib.reduce_on_plateau(factor=0.5, patience=1, accumulation_size=2)
    ),
    "prodigy": lambda lib: lib.contrib.prodigy(),
}


@functools.cache
def program(library, tx):
    @jax.jit
    def step(params, state, t):
        grads = jax.tree.map(lambda p: jnp.sin(t + jnp.arange(p.size).reshape(p.shape)), params)
        extra = {"value": jnp.cos(t)} if "ReduceLROnPlateauState" in str(jax.tree.structure(state)) else {}
        updates, state = tx.update(grads, state, params, **extra)
        return library.apply_updates(params, updates), state

    return step


def train(library, tx, params, state, begin, steps):
    tx = steps_of(tx)
    step = program(library, tx)
    for t in range(begin, begin + steps):
        params, state = step(params, state, jnp.float32(t))
    return params, state


def close(a, b, tolerance=1e-6):
    # In units of a leaf's largest number. Two programs of one formula in float32: a step rounds at some 1e-7.
    off = lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.max(np.abs(y)))
    jax.tree.map(off, a, b)


# Newton-Schulz stretches what is rounded in small singular values, threefold in each of its five steps.
LOOSER = {"muon": 1e-5, "muon, a triple a step": 1e-5, "named": 3e-6}  # the last: at the largest rate here, 0.1 * 20


@pytest.mark.parametrize("name", RUNS)
def test_the_next_ten_steps_are_optaxs(name):
    ours, theirs = RUNS[name](gradtx), RUNS[name](optax)
    params, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 5)
    wanted, end = train(optax, theirs, params, state, 5, 10)
    moved = interop.from_optax_state(ours, state, params)
    assert jax.tree.structure(moved) == jax.tree.structure(ours.init(params))
    jax.jit(lambda state: state, donate_argnums=0)(jax.tree.map(jnp.array, moved))
    found, our_end = train(gradtx, ours, params, moved, 5, 10)
    close(found, wanted, LOOSER.get(name, 1e-6))
    back = interop.to_optax_state(ours, our_end, theirs, params)
    assert jax.tree.structure(back) == jax.tree.structure(end)
    after = train(optax, theirs, found, back, 15, 3)[0], train(optax, theirs, wanted, end, 15, 3)[0]
    close(*after, LOOSER.get(name, 1e-6))


# What searches or draws otherwise is left out, and what lives by a time of its own where Optax counts nothing: the next
# steps of SAM are compared above.
WITHOUT = {"monitor measures", "contrib.muon", "selective_transform"}
WITHOUT |= {name for name in SHARED if name.startswith(("contrib.sam", "examples+"))}


def classes(x):
    """The classes of states in a state."""
    if not isinstance(x, (dict, tuple)):
        return frozenset()
    inside = frozenset().union(*map(classes, x.values() if isinstance(x, dict) else x))
    return inside | {type(x).__name__} if isinstance(x, tuple) and x else inside


def one_of_each():
    """An entry of the catalogue for each set of classes."""
    found = {}
    for name in SHARED:
        if name not in WITHOUT and not CATALOGUE[name].differs:
            found.setdefault(classes(jax.eval_shape(build(gradtx, name).init, PARAMS)), name)
    return found.values()


@pytest.mark.parametrize("name", one_of_each())
def test_five_steps_leave_the_state_that_optaxs_five_steps_become(name):
    ours, theirs = build(gradtx, name), optax.with_extra_args_support(build(optax, name))
    value_fn = lambda params: sum(jnp.sum(p**2) for p in jax.tree.leaves(params)) / 16

    def states(params, drift):
        def step(carry, t):
            grads = jax.tree.map(lambda p: jnp.sin(t + jnp.arange(p.size).reshape(p.shape)) + p / 8, params)
            extra = {"value": value_fn(params), "grad": grads, "value_fn": value_fn}
            return [tx.update(grads, x, params, **extra)[1] for tx, x in zip((ours, theirs), carry, strict=True)], None

        return jax.lax.scan(step, [ours.init(params), theirs.init(params)], drift)[0]

    with jax.enable_x64(True):
        params = jax.tree.map(lambda p: p.astype("float64"), PARAMS)
        mine, other = jax.jit(states)(params, jnp.arange(5.0))
        moved = interop.from_optax_state(ours, other, params, count=5)
        assert jax.tree.structure(moved) == jax.tree.structure(mine)
        for x, y in zip(jax.tree.leaves(moved), jax.tree.leaves(mine), strict=True):
            # float64, but for the powers that Optax takes in float32, and what is stored in bfloat16
            tolerance = 1e-2 if x.dtype == "bfloat16" else 1e-6 if name in IN_FLOAT32 else 1e-9
            np.testing.assert_allclose(x, y, rtol=tolerance, atol=1e-100)
        back = interop.to_optax_state(ours, moved, theirs, params)
        assert jax.tree.structure(back) == jax.tree.structure(other)
        is_key = lambda x: jnp.issubdtype(x.dtype, jax.dtypes.prng_key)  # which is no state here
        jax.tree.map(lambda x, y: is_key(x) or np.testing.assert_array_equal(x, y), back, other)


def test_injected_hyperparameters_may_stay_behind_or_come():
    plain = lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adam(lib.linear_schedule(0.1, 0.0, 30)))
    injected = lambda lib: lib.chain(
        lib.clip_by_global_norm(1.0), lib.inject_hyperparams(lib.adam)(lib.linear_schedule(0.1, 0.0, 30))
    )
    for theirs, ours in ((injected(optax), plain(gradtx)), (plain(optax), injected(gradtx))):
        params, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 5)
        moved = interop.from_optax_state(ours, state, params)
        assert moved["count"] == 5
        found, end = train(gradtx, ours, params, moved, 5, 10)
        close(found, train(optax, theirs, params, state, 5, 10)[0])
        back = interop.to_optax_state(ours, end, theirs, params)
        assert jax.tree.structure(back) == jax.tree.structure(theirs.init(PARAMS))
        close(train(optax, theirs, found, back, 15, 3)[0], train(gradtx, ours, found, end, 15, 3)[0])


def test_a_number_that_was_set_in_the_state_stays_set():
    ours = gradtx.inject_hyperparams(gradtx.adafactor)(0.1, min_dim_size_to_factor=2)
    theirs = optax.inject_hyperparams(optax.adafactor, "min_dim_size_to_factor")(0.1, min_dim_size_to_factor=2)
    state: Any = theirs.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.025)
    moved = interop.from_optax_state(ours, state, PARAMS)
    assert moved.hyperparams["learning_rate"] == 0.025
    assert interop.to_optax_state(ours, moved, theirs, PARAMS).hyperparams["learning_rate"] == 0.025


@pytest.mark.parametrize("name", ["adamw, scheduled", "muon", "MultiSteps", "injected", "partition", "apply_if_finite"])
def test_bare_shapes_will_do_and_no_buffer_is_there_twice(name):
    ours, theirs = RUNS[name](gradtx), RUNS[name](optax)
    _, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 5)
    shapes = jax.eval_shape(lambda: PARAMS)
    moved = interop.from_optax_state(ours, state, shapes)
    back = interop.to_optax_state(ours, moved, theirs, shapes)
    for tx, x in ((ours, moved), (theirs, back)):
        assert jax.tree.structure(x) == jax.tree.structure(tx.init(PARAMS))
        places = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(x)]
        assert len({*places}) == len(places)


def test_lookahead_goes_on_with_its_pair_of_parameters():
    build = lambda lib: lib.lookahead(lib.adam(RATE(lib)), 3, 0.5)
    ours, theirs = build(gradtx), build(optax)
    pair = optax.LookaheadParams.init_synced(PARAMS)
    params, state = train_pair(optax, theirs, pair, theirs.init(pair), 0, 5)
    mine = gradtx.LookaheadParams(*params)
    found, _ = train_pair(gradtx, ours, mine, interop.from_optax_state(ours, state, mine), 5, 10)
    close(tuple(found), tuple(train_pair(optax, theirs, params, state, 5, 10)[0]))


def train_pair(library, tx, params, state, begin, steps):
    for t in range(begin, begin + steps):
        grads = jax.tree.map(lambda p: jnp.sin(t + jnp.arange(p.size).reshape(p.shape)), params.fast)
        updates, state = tx.update(grads, state, params)
        params = library.apply_updates(params, updates)
    return params, state


def test_the_time_may_be_given_where_nothing_counted():
    theirs, ours = optax.sgd(0.1, 0.9), gradtx.sgd(gradtx.linear_schedule(0.1, 0.0, 10), 0.9)
    state = theirs.init(PARAMS)
    assert interop.from_optax_state(ours, state, PARAMS)["count"] == 0
    assert interop.from_optax_state(ours, state, PARAMS, count=5)["count"] == 5
    adam = optax.adam(0.1).init(PARAMS)
    assert interop.from_optax_state(gradtx.adam(0.1), adam, PARAMS, count=5)["count"] == 0


ADAM = optax.adam(0.1)
BIAS = {**PARAMS, "dense": {**PARAMS["dense"], "bias": jnp.ones(4)}}
FEWER = {**PARAMS, "dense": {"kernel": PARAMS["dense"]["kernel"]}}
GROUPS = optax.partition({"a": optax.adam(0.1), "b": optax.sgd(0.1)}, LABELS)


@pytest.mark.parametrize(
    "ours, theirs, params, found",
    [
        (
            gradtx.lion(0.1),
            ADAM,
            PARAMS,
            r"scale_by_lion: no ScaleByLionState to take; there is ScaleByAdamState. Conv",
        ),
        (gradtx.sgd(0.1), ADAM, PARAMS, r"the state: there is no place for ScaleByAdamState. Convert between two"),
        (
            gradtx.chain(gradtx.trace(0.5), gradtx.adam(0.1)),
            ADAM,
            PARAMS,
            r"trace: no TraceState to take; there is ScaleByAdamState. .* add or leave out links afterwards",
        ),
        (
            gradtx.adam(0.1),
            ADAM,
            BIAS,
            r"scale_by_adam.ScaleByAdamState.mu\['dense/bias'\]: it should have shape \(4,\) and has shape \(3,\)",
        ),
        (
            gradtx.adam(0.1),
            ADAM,
            FEWER,
            r"ScaleByAdamState.mu: there is no place for the leaf 'dense/bias'. Give the par",
        ),
        (
            gradtx.MultiSteps(gradtx.lion(0.1), 2),
            optax.MultiSteps(ADAM, 2),
            PARAMS,
            r"MultiStepsState.inner_opt_state.scale_by_lion: no ScaleByLionState to take",
        ),
        (
            gradtx.MultiSteps(gradtx.sgd(0.1), 2),
            optax.MultiSteps(ADAM, 2),
            PARAMS,
            r"MultiStepsState.inner_opt_state: there is no place for ScaleByAdamState",
        ),
        (gradtx.adam(0.1), optax.MultiSteps(ADAM, 2), PARAMS, "no ScaleByAdamState to take; there is MultiStepsState"),
        (
            gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.sgd(0.1)}, LABELS),
            GROUPS,
            PARAMS,
            r"PartitionState.inner_states\['a'\]: there is no place for ScaleByAdamState",
        ),
        (
            gradtx.partition({"a": gradtx.adam(0.1), "c": gradtx.sgd(0.1)}, lambda p: "a"),
            GROUPS,
            PARAMS,
            r"inner_states: the labels are \['a', 'c'\], and those of the other state \['a', 'b'\]",
        ),
        (
            gradtx.partition({"a": gradtx.sgd(0.1), "b": gradtx.adam(0.1)}, LABELS),
            optax.partition({"a": optax.sgd(0.1), "b": optax.adam(0.1)}, jax.tree.map(lambda _: "b", LABELS)),
            PARAMS,
            r"inner_states\['b'\].*ScaleByAdamState.mu: there is no place for the leaf 'dense/kernel'",
        ),
    ],
)
def test_what_does_not_fit_is_named(ours, theirs, params, found):
    with pytest.raises(ValueError, match="`from_optax_state`: .*" + found):
        interop.from_optax_state(ours, theirs.init(PARAMS), params)


def test_what_optax_lacks_is_named():
    ours = gradtx.adam(0.1)
    with pytest.raises(ValueError, match=r"`to_optax_state`: .*no TraceState to take; there is ScaleByAdamState"):
        interop.to_optax_state(ours, ours.init(PARAMS), optax.sgd(0.1, 0.9), PARAMS)
    with pytest.raises(ValueError, match=r"`to_optax_state`: the state: there is no place for ScaleByAdamState"):
        interop.to_optax_state(ours, ours.init(PARAMS), optax.sgd(0.1), PARAMS)

"""Ours inside Optax's combinators, and Optax's inside ours."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx.interop import as_optax

PARAMS = {"w": jnp.arange(6.0).reshape(2, 3) - 2, "b": jnp.ones(3)}
GRADS = [jax.tree.map(lambda p, t=t: jnp.sin(t + p), PARAMS) for t in range(1, 6)]


def run(tx, apply=optax.apply_updates, **extra):
    params, state = PARAMS, tx.init(PARAMS)
    update = jax.jit(tx.update)
    for g in GRADS:
        updates, state = update(g, state, params, **extra)
        params = apply(params, updates)
    return params


def close(a, b):
    # float32, the operations in another order; in Optax 1 - 0.999^t is a difference of rounded numbers
    chex.assert_trees_all_close(a, b, rtol=1e-5, atol=3e-6)


def test_inside_an_optax_chain():
    ours = optax.chain(optax.clip(0.5), gradtx.adamw(0.1))
    close(run(ours), run(optax.chain(optax.clip(0.5), optax.adamw(0.1))))


def test_optax_links_inside_ours():
    ours = gradtx.chain(optax.clip(0.5), optax.scale_by_adam(), gradtx.scale_by_learning_rate(0.1))
    close(run(ours, gradtx.apply_updates), run(optax.chain(optax.clip(0.5), optax.adam(0.1))))


def test_an_optax_link_that_takes_extra_arguments_gets_them():
    ours = gradtx.chain(gradtx.adam(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    theirs = optax.chain(optax.adam(0.1), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    close(run(ours, value=jnp.float32(1.0)), run(theirs, value=jnp.float32(1.0)))


def test_an_optax_link_keeps_its_state_with_mixed_dtypes():
    params, grads = jnp.ones(3, jnp.bfloat16), jnp.ones(3)  # in Optax alone this changes dtype
    tx = gradtx.chain(optax.scale_by_adam(), gradtx.scale(-0.1))
    jax.lax.scan(lambda state, g: (tx.update(g, state, params)[1], None), tx.init(params), jnp.stack([grads] * 3))


@pytest.mark.parametrize("wrap", [lambda tx: optax.MultiSteps(tx, 2), lambda tx: optax.apply_if_finite(tx, 3)])
def test_inside_optax_wrappers(wrap):
    close(run(wrap(gradtx.adamw(0.1))), run(wrap(optax.adamw(0.1))))


def test_inside_inject_hyperparams():
    tx = optax.inject_hyperparams(gradtx.adamw)(learning_rate=0.1)
    state = tx.init(PARAMS)
    state.hyperparams["learning_rate"] = jnp.float32(0.0)
    updates, _ = jax.jit(tx.update)(GRADS[0], state, PARAMS)
    assert all(np.all(np.asarray(u) == 0) for u in jax.tree.leaves(updates))


def test_inside_optax_partition_and_masked():
    labels = {"w": "a", "b": "b"}
    split = lambda lib: optax.partition({"a": lib.adam(0.1), "b": lib.sgd(0.1)}, labels)
    close(run(split(gradtx)), run(split(optax)))
    close(run(optax.masked(gradtx.adam(0.1), {"w": True, "b": False})), run(optax.masked(optax.adam(0.1), labels_mask)))


LABELS = {"w": "a", "b": "b"}
AROUND = {
    "chain": lambda lib, tx: lib.chain(lib.clip_by_global_norm(1.0), tx, lib.scale(0.5)),
    "MultiSteps": lambda lib, tx: lib.MultiSteps(tx, 2),
    "apply_if_finite": lambda lib, tx: lib.apply_if_finite(tx, 3),
    "masked": lambda lib, tx: lib.masked(tx, labels_mask),
    "partition": lambda lib, tx: lib.partition({"a": tx, "b": lib.sgd(0.1)}, LABELS),
    "inject_hyperparams": lambda lib, tx: lib.inject_hyperparams(lambda factor: lib.chain(tx, lib.scale(factor)))(0.5),
    "conditionally_transform": lambda lib, tx: lib.conditionally_transform(tx, lambda step: step % 2 == 0),
}


def reads(lib):
    """What needs the time, and an extra argument."""
    return lib.chain(lib.adamw(lib.linear_schedule(0.1, 0.0, 9)), lib.contrib.reduce_on_plateau(0.5, patience=1))


@pytest.mark.parametrize("around", AROUND)
def test_each_around_the_other_gives_optaxs_numbers_and_the_extra_arguments(around):
    wrap, value = AROUND[around], jnp.float32(1.0)
    wanted = run(wrap(optax, reads(optax)), value=value)
    close(run(wrap(optax, as_optax(reads(gradtx))), value=value), wanted)
    close(run(wrap(gradtx, reads(optax)), gradtx.apply_updates, value=value), wanted)


labels_mask = {"w": True, "b": False}

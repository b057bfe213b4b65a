"""apply_if_finite: a bad step leaves everything as it was."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"a": jnp.array([1.0, -2.0]), "b": jnp.array(3.0)}
GOOD = {"a": jnp.array([0.5, 0.25]), "b": jnp.array(-1.0)}
TX = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(gradtx.linear_schedule(0.1, 0.0, 10)))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_a_bad_gradient_leaves_parameters_moments_and_counts_as_they_were(bad):
    guarded = gradtx.apply_if_finite(TX)
    step = jax.jit(guarded.update)
    _, before = step(GOOD, guarded.init(PARAMS), PARAMS)
    updates, state = step(GOOD | {"b": jnp.array(bad)}, before, PARAMS)
    chex.assert_trees_all_equal(gradtx.apply_updates(PARAMS, updates), PARAMS)
    chex.assert_trees_all_equal(state.inner_state, before.inner_state)
    assert (state.notfinite_count, state.total_notfinite, bool(state.last_finite)) == (1, 1, False)


def test_good_steps_are_the_inner_ones_and_counts_are_kept():
    guarded = gradtx.apply_if_finite(TX)
    step, plain = jax.jit(guarded.update), jax.jit(TX.update)
    state, inner, counts = guarded.init(PARAMS), TX.init(PARAMS), []
    bad = GOOD | {"a": jnp.array([jnp.nan, 1.0])}
    for g in (GOOD, bad, bad, GOOD, bad):
        updates, state = step(g, state, PARAMS)
        if g is GOOD:
            expected, inner = plain(g, inner, PARAMS)
            # Another program: XLA may round a product and a sum in one or in two.
            chex.assert_trees_all_close(updates, expected, rtol=1e-6)
        counts.append((int(state.notfinite_count), int(state.total_notfinite)))
    assert counts == [(0, 0), (1, 1), (2, 2), (0, 2), (1, 3)]
    assert inner["count"] == state.inner_state["count"] == 2


def test_a_foreign_one_of_narrow_updates_is_guarded_too():
    params = {"a": jnp.ones(2, jnp.bfloat16)}
    narrow = gradtx.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda x: x.astype(jnp.bfloat16), g), s)
    )
    guarded = gradtx.apply_if_finite(narrow)
    updates, state = jax.jit(guarded.update)(params, guarded.init(params), params)
    assert updates["a"].dtype == jnp.float32 and np.all(updates["a"] == 1) and state.last_finite


def test_nan_is_never_let_in_where_optax_gives_up():
    bad = jax.tree.map(lambda g: g * jnp.nan, GOOD)
    theirs = optax.apply_if_finite(optax.sgd(0.1), max_consecutive_errors=1)
    ends = {}
    for name, tx in (("ours", gradtx.apply_if_finite(gradtx.sgd(0.1))), ("theirs", theirs)):
        state = tx.init(PARAMS)
        for _ in range(3):
            updates, state = tx.update(bad, state, PARAMS)
        ends[name] = updates
    chex.assert_tree_all_finite(ends["ours"])
    assert np.isnan(ends["theirs"]["b"])


def test_fields_are_optax_s():
    ours, theirs = (lib.apply_if_finite(*args).init(PARAMS) for lib, args in ((gradtx, [TX]), (optax, [TX, 3])))
    assert ours._fields == theirs._fields


def test_not_a_transformation_is_an_error():
    with pytest.raises(TypeError, match=r"`apply_if_finite`: inner must be a gradient transformation"):
        gradtx.apply_if_finite(3)

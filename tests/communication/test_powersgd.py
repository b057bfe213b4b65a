"""PowerSGD beside the source's algorithm in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.collectives import collectives

from .replicas import (
    DRIFT,
    PARAMS,
    SETTINGS,
    SHAPES,
    N,
    assert_nothing_lost,
    assert_same_on_all,
    cast,
    mean,
    oracle,
    program,
    run,
)

MATRICES = ("matrix", "wide")
TX = gradtx.chain(gradtx.powersgd(2, "data"), gradtx.scale_by_learning_rate(0.1))


def first_q(rank):
    with jax.enable_x64(True):
        state = gradtx.powersgd(rank).init(cast(PARAMS, "float64"))
    return {k: np.asarray(state.q[k][0]) for k in MATRICES}


def power_iteration():
    q, errors = first_q(2), [{k: np.zeros(SHAPES[k]) for k in MATRICES} for _ in range(N)]

    def rule(grads, params):
        updates = mean(grads)
        for k in MATRICES:
            matrices = [g[k] + e[k] for g, e in zip(grads, errors, strict=True)]
            p = np.linalg.qr(np.mean([m @ q[k] for m in matrices], axis=0))[0]
            q[k] = np.mean([m.T @ p for m in matrices], axis=0)
            updates[k] = p @ q[k].T
            for e, m in zip(errors, matrices, strict=True):
                e[k] = m - updates[k]
        return [{k: -0.1 * u for k, u in updates.items()}] * N

    return rule


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_one_step_of_power_iteration(setting):
    _, updates, _ = run(TX, setting)
    wanted = oracle(power_iteration)
    for name in wanted:
        # rounding of 1e-16, amplified by the orthogonalization of nearby columns over the steps
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-9, atol=1e-12)
    assert_same_on_all(updates)


def test_in_float32_all_devices_agree_to_the_bit():
    params, updates, state = run(TX, dtype="float32")
    assert_same_on_all((params, updates, state["powersgd"].q))
    assert state["powersgd"].error["vector"] is state["powersgd"].q["scale"] is None
    assert not np.array_equal(state["powersgd"].error["matrix"][0], state["powersgd"].error["matrix"][1])


def test_nothing_is_lost():
    """What was sent and what is left sum to the gradients."""
    params, updates, state = run(gradtx.powersgd(1, "data"))
    assert_nothing_lost(MATRICES, params, updates, state.error, atol=1e-12)  # some hundred roundings of 1e-16


def test_a_rank_that_saves_nothing_sends_the_mean():
    _, updates, _ = run(gradtx.chain(gradtx.powersgd(6, "data"), gradtx.scale_by_learning_rate(0.1)))
    wanted = oracle(lambda: lambda grads, params: [{k: -0.1 * g for k, g in mean(grads).items()}] * N)
    for name in wanted:
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-12, atol=1e-15)  # sums of eight in other orders


def test_a_gradient_of_its_rank_is_sent_as_it_is():
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(12, 2)) @ rng.normal(size=(2, 10)), jnp.float32)
    tx = gradtx.powersgd(2)
    u, state = tx.update(g, tx.init(g))
    np.testing.assert_allclose(u, g, atol=1e-5)  # float32
    np.testing.assert_allclose(state.error, 0, atol=1e-5)  # float32


def test_a_constant_gradient_is_followed():
    """With its error fed back, the mean of the updates comes to the gradient, of whatever rank it is."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(6, 5)), jnp.float32)
    tx, total, u = gradtx.powersgd(1), jnp.zeros_like(g), g
    update, state = jax.jit(tx.update), tx.init(g)
    for _ in range(60):
        u, state = update(g, state)
        total += u
    assert np.linalg.norm(total / 60 - g) < 0.2 * np.linalg.norm(g)  # the error stays bounded; it falls as 1 / steps
    assert np.linalg.norm(u - g) > 0.2 * np.linalg.norm(g)  # a single one is far from it


def test_a_gradient_that_was_zero_once_is_seen_later():
    g = jnp.zeros((8, 5)).at[7].set(1.0)  # a row beyond the first `rank`
    tx = gradtx.powersgd(1)
    _, state = tx.update(jnp.zeros_like(g), tx.init(g))
    u, _ = tx.update(g, state)
    np.testing.assert_allclose(u, g, atol=1e-6)  # float32


def test_complex_matrices():
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.normal(size=shape) + 1j * rng.normal(size=shape)
    g = jnp.asarray(draw(12, 2) @ draw(2, 10), jnp.complex64)
    tx = gradtx.powersgd(2)
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], g, atol=2e-5)  # float32, entries up to 10


def test_axes_may_be_named():
    stack = jnp.asarray(np.random.default_rng(0).normal(size=(3, 8, 6)), jnp.float32)
    tx = gradtx.powersgd(1, weight_dimension_numbers=gradtx.contrib.MuonDimensionNumbers(-2, -1))
    u, state = tx.update(stack, tx.init(stack))
    assert state.q.shape == (3, 6, 1) and all(np.linalg.matrix_rank(x, tol=1e-4) == 1 for x in u)
    u, _ = gradtx.powersgd(1).update(stack, gradtx.powersgd(1).init(stack))
    assert u is stack or np.array_equal(u, stack)  # three dimensions are no matrix


def test_it_sends_two_factors_and_vectors_in_two_collectives():
    compiled = program(gradtx.powersgd(4, "data"))
    assert {kind: tuple(x) for kind, x in collectives(compiled).items()} == {
        "all-reduce": (2, 4 * (4 * (256 + 256) + 256))
    }


def test_a_nan_on_one_device_leaves_no_trace():
    tx = gradtx.apply_if_finite(gradtx.chain(gradtx.powersgd(1, "data"), gradtx.adam(0.1)), axis="data")
    drift = {k: x.copy() for k, x in DRIFT.items()}
    drift["matrix"][3, 1, 0, 0] = np.nan
    params, updates, state = run(tx, dtype="float32", drift=drift)
    assert_same_on_all((params, updates))
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((params, state)))
    assert (updates["vector"][:, 1] == 0).all() and (state.total_notfinite == 1).all()


def test_gradients_are_accumulated_before_they_are_sent():
    tx = gradtx.MultiSteps(gradtx.chain(gradtx.powersgd(1, "data"), gradtx.sgd(0.1)), 2)
    params, updates, _ = run(tx, dtype="float32")
    assert_same_on_all((params, updates))
    assert (updates["vector"][:, 0] == 0).all() and (updates["vector"][:, 1] != 0).all()

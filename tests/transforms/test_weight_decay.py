"""decay_weights: decay of the weight that a step leads to."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


@both_precisions
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("of", ["new", "old"])
def test_the_weight_after_the_step_decays(of, cautious, precision):
    def method(p):
        def step(g, p, t):
            u = -0.1 * g
            lost = 0.4 * 0.05 * (p + u if of == "new" else p)
            return u - (np.where((np.conj(p) * u).real < 0, lost, 0) if cautious else lost)

        return step

    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.decay_weights(0.05, 0.4, cautious=cautious, of=of))
    leaves = ("dense/kernel",) if precision == "float64" else ()
    check(tx, leafwise(method), precision, complex_leaves=leaves)


def test_it_may_start_later():
    p, tx = jnp.ones(2), gradtx.decay_weights(0.5, start=3)
    state = tx.init(p)
    for fraction in (0.0, 0.0, 0.5, 0.5):
        u, state = tx.update(jnp.zeros(2), state, p)
        np.testing.assert_allclose(u, -fraction)


def test_the_mask_chooses_what_decays():
    p = {"a": jnp.ones(3), "b": jnp.ones(3)}
    tx = gradtx.decay_weights(0.5, mask="a")
    u, _ = tx.update({"a": jnp.zeros(3), "b": jnp.zeros(3)}, tx.init(p), p)
    np.testing.assert_allclose(u["a"], -0.5)
    np.testing.assert_array_equal(u["b"], 0)


def test_of_the_old_weight_it_is_adamws_decay():
    p, g = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.3, 0.2, -0.1])
    after = gradtx.chain(gradtx.sgd(0.1), gradtx.decay_weights(0.05, 0.1, of="old"))
    before = gradtx.chain(gradtx.add_decayed_weights(0.05), gradtx.sgd(0.1))
    np.testing.assert_allclose(after.update(g, after.init(p), p)[0], before.update(g, before.init(p), p)[0], atol=3e-7)


def test_rate_and_decay_follow_schedules():
    p, tx = jnp.ones(2), gradtx.decay_weights(0.5, gradtx.linear_schedule(1.0, 0.0, 2))
    state = tx.init(p)
    for fraction in (0.5, 0.25, 0.0):
        u, state = tx.update(jnp.zeros(2), state, p)
        np.testing.assert_allclose(u, -fraction)


def test_after_a_projection_it_decays_what_that_decided():
    p, g = jnp.ones((2, 2)), jnp.array([[0.5, -0.5], [1.0, 0.0]])
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.keep_norm(), gradtx.decay_weights(0.1))
    new = gradtx.apply_updates(p, tx.update(g, tx.init(p), p)[0])
    np.testing.assert_allclose(np.linalg.norm(new), 0.9 * 2, rtol=1e-6)

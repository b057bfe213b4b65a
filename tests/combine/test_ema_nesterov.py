"""ema_nesterov: gradients ahead along the mean of the moves (arXiv 2605.25395)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise

from .test_average import INNER, P, walked


def ahead(beta, gamma, rate=0.1, rho=0.5, decay=0.01):
    """x~ = x + beta m; x+ = A(x~); m = gamma m + (1 - gamma) (x+ - x). A: heavy ball with decay. x is kept here."""
    beta = beta if callable(beta) else lambda t, b=beta: b

    @leafwise
    def rule(p):
        x, m, v = p.copy(), np.zeros_like(p), np.zeros_like(p)

        def step(g, y, t):
            nonlocal x, m, v
            v = rho * v + g
            new = y - rate * (v + decay * y)
            m = gamma * m + (1 - gamma) * (new - x)
            x = new
            return x + beta(t) * m - y

        return step

    return rule


A = gradtx.chain(gradtx.trace(0.5), gradtx.add_decayed_weights(0.01), gradtx.scale_by_learning_rate(0.1))


@both_precisions
@pytest.mark.parametrize(("beta", "gamma"), [(0.3, 0.99), (0.6, 0.5), (0.9, 0.0)])
def test_the_method_inside_steps_from_ahead(beta, gamma, precision):
    check(gradtx.ema_nesterov(A, beta, gamma), ahead(beta, gamma), precision, steps=20)


def test_complex_parameters_are_pairs_of_reals():
    check(gradtx.ema_nesterov(A, 0.6, 0.5), ahead(0.6, 0.5), complex_leaves=("dense/kernel",))


def test_beta_follows_a_schedule_which_is_read_for_what_is_made():
    active = lambda t: jnp.where((t >= 3) & (t < 9), 0.5, 0.0)
    check(gradtx.ema_nesterov(A, active, 0.8), ahead(lambda t: 0.5 if 3 <= t < 9 else 0.0, 0.8))


def test_without_beta_the_updates_are_those_inside_to_the_bit():
    check_same(gradtx.ema_nesterov(A, 0.0), A, tolerance=0)


def test_the_model_is_evaluated_behind(op_by_op):
    """With the x of the formula: what the step inside led to."""
    with jax.enable_x64(True):
        p = jax.tree.map(lambda x: x.astype(jnp.float64), P)
        tx, alone = gradtx.ema_nesterov(INNER, 0.6, 0.5), INNER
        state, its_state = tx.init(p), alone.init(p)
        jax.tree.map(np.testing.assert_array_equal, gradtx.eval_params(tx, state, p), p)
        for t in range(5):
            g = jax.tree.map(lambda x, t=t: jnp.cos(t + x), p)
            steps, its_state = alone.update(g, its_state, p)
            home = gradtx.apply_updates(p, steps)
            updates, state = tx.update(g, state, p)
            p = gradtx.apply_updates(p, updates)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), gradtx.eval_params(tx, state, p), home
            )


def test_on_a_long_slope_it_moves_several_steps_at_a_time():
    """With m = u + beta m in the long run, x moves u / (1 - beta)."""
    p, tx = jnp.zeros(2), gradtx.ema_nesterov(gradtx.sgd(0.1), 0.75, 0.9)

    def body(carry, _):
        updates, state = tx.update(jnp.ones(2), carry[1], carry[0])
        return (gradtx.apply_updates(carry[0], updates), state), updates

    _, updates = jax.lax.scan(body, (p, tx.init(p)), length=600)
    np.testing.assert_allclose(updates[-1], -0.1 / (1 - 0.75), rtol=1e-5)  # 0.975^600, and float32
    np.testing.assert_allclose(updates[0], -0.1 * (1 + 0.75 * 0.1), rtol=1e-6)


def test_storage_and_errors(op_by_op):
    assert gradtx.ema_nesterov(INNER, mu_dtype="bfloat16").init(P).mu["w"].dtype == jnp.bfloat16
    low = walked(gradtx.ema_nesterov(INNER, 0.5, mu_dtype="bfloat16"), 4, dtype="bfloat16")
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(low))
    with pytest.raises(ValueError, match=r"`ema_nesterov`: beta must .*, got 1.0"):
        gradtx.ema_nesterov(INNER, 1.0)

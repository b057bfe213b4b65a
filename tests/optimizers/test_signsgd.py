"""sign_sgd, signum: Bernstein, Wang, Azizzadenesheli, Anandkumar 2018, Algorithms 1 and 2."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def sign(x):
    return np.sign(x.real) + 1j * np.sign(x.imag) if np.iscomplexobj(x) else np.sign(x)


def signum(lr, beta=0.0):
    """m = beta m + (1 - beta) g, theta -= lr sign(m)."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            m = beta * m + (1 - beta) * g
            return -lr * sign(m)

        return step

    return rule


@both_precisions
def test_sign_sgd_moves_by_the_rate_against_the_sign(precision):
    check(gradtx.sign_sgd(0.02), signum(0.02), precision)


@both_precisions
@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_signum_takes_the_sign_of_the_running_mean(beta, precision):
    check(gradtx.signum(0.02, beta), signum(0.02, beta), precision)


def test_complex_entries_have_both_parts_signs():
    check(gradtx.signum(0.02), signum(0.02, 0.9), complex_leaves=("dense/kernel", "scale"))


def test_without_memory_signum_is_sign_sgd():
    check_same(gradtx.signum(0.02, beta=0.0), gradtx.sign_sgd(0.02))


def test_where_the_gradient_is_zero_nothing_moves():
    tx = gradtx.sign_sgd(0.1)
    g = jnp.array([0.0, -0.0, 3.0])
    updates, _ = tx.update(g, tx.init(g))
    np.testing.assert_array_equal(updates, np.array([0, 0, -0.1], "float32"))


def test_a_mean_in_bfloat16_stays_so():
    tx = gradtx.signum(0.1, accumulator_dtype="bfloat16")
    state = tx.init(jnp.ones(3))
    assert state["ema"].ema.dtype == tx.update(jnp.ones(3), state)[1]["ema"].ema.dtype == jnp.bfloat16


def test_sign_sgd_keeps_nothing_but_the_time():
    assert set(gradtx.sign_sgd(0.1).init(jnp.ones(3))) == {"count"}


def test_on_a_parabola_signum_comes_within_a_step_of_the_minimum():
    tx = gradtx.signum(lambda t: 0.1 / (1 + t) ** 0.5)

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(2 * p, state)
        return (gradtx.apply_updates(p, updates), state), None

    p = jnp.array([1.0, -3.0])
    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=4000)
    assert jnp.max(jnp.abs(p)) < 0.05  # the rate is 0.0016 at the end, and momentum swings over some thirty steps


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_a_beta_outside_zero_to_one_is_an_error(beta):
    with pytest.raises(ValueError, match=rf"decay.*{beta}"):
        gradtx.signum(0.1, beta)

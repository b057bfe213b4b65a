"""sgd: Robbins and Monro 1951; momentum of Polyak 1964; Nesterov's form of Sutskever et al. 2013."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import STEPS, both_precisions, check, check_same, leafwise


def sgd(lr, mu=0.0, nesterov=False):
    """v = mu v + g, theta -= lr_t v; Nesterov: theta -= lr_t (g + mu v)."""
    lr = lr if callable(lr) else lambda t, lr=lr: lr

    @leafwise
    def rule(p):
        v = np.zeros_like(p)

        def step(g, p, t):
            nonlocal v
            v = mu * v + g
            return -lr(t - 1) * (g + mu * v if nesterov else v)

        return step

    return rule


@both_precisions
def test_plain_sgd_subtracts_the_rate_times_the_gradient(precision):
    check(gradtx.sgd(0.1), sgd(0.1), precision)


@both_precisions
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("mu", [0.5, 0.9])
def test_momentum_is_polyaks_heavy_ball_or_nesterovs_form_of_it(mu, nesterov, precision):
    check(gradtx.sgd(0.05, mu, nesterov), sgd(0.05, mu, nesterov), precision)


def test_a_scheduled_rate_multiplies_the_velocity_and_not_the_gradient():
    def rate(t):
        return 0.1 / (1 + t)

    check(gradtx.sgd(rate, momentum=0.9), sgd(rate, 0.9))


def test_a_scheduled_momentum_takes_the_value_of_its_step():
    @leafwise
    def rule(p):
        v = np.zeros_like(p)

        def step(g, p, t):
            nonlocal v
            v = (0.9 - 0.5 / t) * v + g
            return -0.05 * v

        return step

    check(gradtx.sgd(0.05, momentum=lambda t: 0.9 - 0.5 / (t + 1)), rule)


def test_a_schedule_sees_zero_on_the_first_update():
    tx = gradtx.sgd(lambda t: t)
    params = jnp.ones(3)
    updates, state = tx.update(jnp.ones(3), tx.init(params), params)
    np.testing.assert_array_equal(updates, np.zeros(3))
    updates, _ = tx.update(jnp.ones(3), state, params)
    np.testing.assert_array_equal(updates, -np.ones(3))


@pytest.mark.parametrize("nesterov", [False, True])
def test_zero_momentum_is_plain_sgd(nesterov):
    check_same(gradtx.sgd(0.1, momentum=0.0, nesterov=nesterov), gradtx.sgd(0.1))


def test_without_momentum_no_parameter_sized_state_is_kept():
    params = {"w": jnp.ones((7, 5))}
    assert all(leaf.size == 1 for leaf in jax.tree.leaves(gradtx.sgd(0.1).init(params)))
    assert sum(leaf.size > 1 for leaf in jax.tree.leaves(gradtx.sgd(0.1, 0.9).init(params))) == 1


def test_a_constant_gradient_reaches_the_terminal_velocity():
    """v -> g / (1 - mu): ten times the gradient at mu = 0.9."""
    tx = gradtx.sgd(1.0, momentum=0.9)
    params, g = jnp.zeros(2), jnp.array([1.0, -3.0])

    def step(state, _):
        updates, state = tx.update(g, state, params)
        return state, updates

    _, updates = jax.lax.scan(step, tx.init(params), None, length=300)
    np.testing.assert_allclose(updates[-1], -10 * np.asarray(g), rtol=1e-5)  # 0.9^300 is 2e-14


def test_nesterov_is_the_textbooks_look_ahead_after_a_change_of_variables():
    """v' = b v + lr grad(theta - b v), theta' = theta - v' moves phi = theta - b v exactly as `nesterov=True` does.

    On f(theta) = 1/2 theta^T A theta - c^T theta, so that the look-ahead gradient differs from the plain one.
    """
    rng = np.random.default_rng(1)
    root = rng.normal(size=(4, 4))
    a, c = root @ root.T / 4 + np.eye(4), rng.normal(size=4)
    lr, b = 0.05, 0.9

    theta, v, looks = rng.normal(size=4), np.zeros(4), []
    start = theta.copy()
    for _ in range(STEPS):
        v = b * v + lr * (a @ (theta - b * v) - c)
        theta = theta - v
        looks.append(theta - b * v)

    with jax.enable_x64(True):
        tx = gradtx.sgd(lr, momentum=b, nesterov=True)
        phi = jnp.asarray(start)
        state = tx.init(phi)
        for look in looks:
            updates, state = tx.update(jnp.asarray(a) @ phi - jnp.asarray(c), state, phi)
            phi = gradtx.apply_updates(phi, updates)
            np.testing.assert_allclose(phi, look, rtol=1e-10)


def test_a_complex_parameter_moves_as_its_real_and_imaginary_parts_do():
    check(gradtx.sgd(0.05, 0.9), sgd(0.05, 0.9), complex_leaves=("dense/kernel", "scale"))


@pytest.mark.parametrize("momentum", [None, 0.5])
def test_a_complex_parameter_descends_without_conjugating_by_hand(momentum):
    target = 1 + 2j
    tx = gradtx.sgd(0.1, momentum)
    z = jnp.asarray(3 + 0j)

    def step(carry, _):
        z, state = carry
        updates, state = tx.update(jax.grad(lambda z: jnp.abs(z - target) ** 2)(z), state, z)
        return (gradtx.apply_updates(z, updates), state), None

    (z, _), _ = jax.lax.scan(step, (z, tx.init(z)), None, length=100)
    assert abs(complex(z) - target) < 1e-4


@pytest.mark.parametrize("momentum", [-0.1, 1.5])
def test_a_momentum_outside_zero_to_one_is_an_error(momentum):
    with pytest.raises(ValueError, match=rf"`.*(momentum|decay).*{momentum}"):
        gradtx.sgd(0.1, momentum=momentum)


def test_a_gradient_of_the_wrong_shape_is_an_error_that_names_the_leaf():
    tx = gradtx.sgd(0.1, momentum=0.9)
    params = {"dense": {"kernel": jnp.ones((3, 4))}}
    state = tx.init(params)
    with pytest.raises(ValueError, match=r"kernel.*\(3,\).*\(3, 4\)"):
        tx.update({"dense": {"kernel": jnp.ones(3)}}, state, params)

"""momentum: the forms in which textbooks write it, each against its own formula."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import STEPS, both_precisions, check, check_same, leafwise


def constant(x):
    return x if callable(x) else lambda t: x


def heavy_ball(lr, b):
    """v = b v + g, theta = theta - lr v."""
    lr = constant(lr)

    @leafwise
    def rule(p):
        v = np.zeros_like(p)

        def step(g, p, t):
            nonlocal v
            v = b * v + g
            return -lr(t - 1) * v

        return step

    return rule


def velocity(lr, b):
    """v = b v + lr g, theta = theta - v."""
    lr = constant(lr)

    @leafwise
    def rule(p):
        v = np.zeros_like(p)

        def step(g, p, t):
            nonlocal v
            v = b * v + lr(t - 1) * g
            return -v

        return step

    return rule


def averaged(lr, b):
    """u = b u + (1 - b) g, theta = theta - lr u."""
    lr = constant(lr)

    @leafwise
    def rule(p):
        u = np.zeros_like(p)

        def step(g, p, t):
            nonlocal u
            u = b * u + (1 - b) * g
            return -lr(t - 1) * u

        return step

    return rule


def unbiased(lr, b):
    """u = b u + (1 - b) g, theta = theta - lr u / (1 - b^t), t gradients seen."""
    lr = constant(lr)

    @leafwise
    def rule(p):
        u = np.zeros_like(p)

        def step(g, p, t):
            nonlocal u
            u = b * u + (1 - b) * g
            return -lr(t - 1) * u / (1 - b**t)

        return step

    return rule


FORMS = {"heavy_ball": heavy_ball, "velocity": velocity, "averaged": averaged, "unbiased": unbiased}


@both_precisions
@pytest.mark.parametrize("decay", [0.5, 0.9])
@pytest.mark.parametrize("form", FORMS)
def test_each_form_follows_its_own_formula(form, decay, precision):
    check(gradtx.momentum(0.05, decay, form=form), FORMS[form](0.05, decay), precision)


@pytest.mark.parametrize("form", FORMS)
def test_each_form_follows_its_own_formula_under_a_scheduled_rate(form):
    """Where heavy ball and velocity part: one multiplies what was gathered by today's rate, the other does not."""

    def rate(t):
        return 0.1 / (1 + t)

    check(gradtx.momentum(rate, 0.9, form=form), FORMS[form](rate, 0.9))


def test_heavy_ball_is_the_default_with_a_decay_of_nine_tenths():
    assert gradtx.momentum(0.05) == gradtx.momentum(0.05, 0.9, form="heavy_ball", nesterov=False)


@pytest.mark.parametrize("nesterov", [False, True])
def test_heavy_ball_is_sgd_with_momentum(nesterov):
    check_same(gradtx.momentum(0.05, 0.9, nesterov=nesterov), gradtx.sgd(0.05, 0.9, nesterov))


@pytest.mark.parametrize("nesterov", [False, True])
def test_velocity_is_heavy_ball_while_the_rate_stands_still(nesterov):
    check_same(
        gradtx.momentum(0.05, 0.9, form="velocity", nesterov=nesterov),
        gradtx.momentum(0.05, 0.9, form="heavy_ball", nesterov=nesterov),
    )


def test_averaged_is_heavy_ball_with_a_rate_of_one_minus_decay_times_as_much():
    check_same(
        gradtx.momentum(0.5, 0.9, form="averaged"),
        gradtx.momentum(0.5 * (1 - 0.9), 0.9, form="heavy_ball"),
    )


def test_the_first_unbiased_step_is_the_rate_times_the_gradient():
    tx = gradtx.momentum(0.25, 0.9, form="unbiased")
    g = jnp.array([1.0, -2.0, 0.5])
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, -0.25 * np.asarray(g), rtol=1e-6)  # a product and a quotient by 1 - 0.9


def test_a_constant_gradient_is_its_own_unbiased_average_at_every_step():
    tx = gradtx.momentum(1.0, 0.999, form="unbiased")
    g = jnp.array([1.0, -2.0])

    def step(state, _):
        updates, state = tx.update(g, state, g)
        return state, updates

    _, updates = jax.lax.scan(step, tx.init(g), None, length=2000)
    np.testing.assert_allclose(updates, np.tile(-np.asarray(g), (2000, 1)), rtol=1e-5)  # float32, 2000 roundings


def quadratic():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(4, 4))
    return root @ root.T / 4 + np.eye(4), rng.normal(size=4), rng.normal(size=4)


def follow(tx, a, c, start, path):
    with jax.enable_x64(True):
        phi = jnp.asarray(start)
        state = tx.init(phi)
        for point in path:
            updates, state = tx.update(jnp.asarray(a) @ phi - jnp.asarray(c), state, phi)
            phi = gradtx.apply_updates(phi, updates)
            np.testing.assert_allclose(phi, point, rtol=1e-10)


def test_velocity_with_nesterov_is_the_textbooks_look_ahead_after_a_change_of_variables():
    """v' = b v + lr grad(theta - b v), theta' = theta - v', seen at phi = theta - b v."""
    a, c, start = quadratic()
    lr, b = 0.05, 0.9
    theta, v, path = start.copy(), np.zeros(4), []
    for _ in range(STEPS):
        v = b * v + lr * (a @ (theta - b * v) - c)
        theta = theta - v
        path.append(theta - b * v)
    follow(gradtx.momentum(lr, b, form="velocity", nesterov=True), a, c, start, path)


def test_the_averaged_look_ahead_is_nesterov_with_a_rate_of_one_minus_decay_times_as_much():
    """u' = b u + (1 - b) grad(theta - lr b u), theta' = theta - lr u', seen at phi = theta - lr b u.

    The textbook looks ahead by lr u: one decay too far, as u fades by b before the next gradient joins it.
    """
    a, c, start = quadratic()
    lr, b = 0.2, 0.9
    theta, u, path = start.copy(), np.zeros(4), []
    for _ in range(STEPS):
        u = b * u + (1 - b) * (a @ (theta - lr * b * u) - c)
        theta = theta - lr * u
        path.append(theta - lr * b * u)
    follow(gradtx.momentum(lr * (1 - b), b, nesterov=True), a, c, start, path)


@pytest.mark.parametrize("form", ["averaged", "unbiased"])
def test_nesterov_with_an_average_is_an_error_that_names_the_form(form):
    with pytest.raises(ValueError, match=rf"`momentum`.*nesterov.*{form}"):
        gradtx.momentum(0.1, form=form, nesterov=True)


@pytest.mark.parametrize("form", FORMS)
def test_a_complex_parameter_moves_as_its_real_and_imaginary_parts_do(form):
    check(gradtx.momentum(0.05, form=form), FORMS[form](0.05, 0.9), complex_leaves=("dense/kernel",))


def test_an_unknown_form_is_an_error_that_lists_the_forms():
    with pytest.raises(ValueError, match=r"`momentum`.*form.*polyak"):
        gradtx.momentum(0.1, form="polyak")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("decay", [1.5, -0.5])
def test_a_decay_outside_zero_to_one_is_an_error(decay, form):
    with pytest.raises(ValueError, match=rf"`.*decay.*{decay}"):
        gradtx.momentum(0.1, decay, form=form)

"""adadelta: Zeiler 2012, Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adadelta(lr=1.0, rho=0.9, eps=1e-6, decay=0.0):
    """E[g^2] = rho E + (1 - rho) g^2; dx = -RMS[dx] / RMS[g] g; E[dx^2] = rho E + (1 - rho) dx^2; theta += lr dx."""

    @leafwise
    def rule(p):
        e_g = e_x = np.zeros(p.shape)

        def step(g, p, t):
            nonlocal e_g, e_x
            g = g + decay * p
            e_g = rho * e_g + (1 - rho) * np.abs(g) ** 2
            dx = -np.sqrt(e_x + eps) / np.sqrt(e_g + eps) * g
            e_x = rho * e_x + (1 - rho) * np.abs(dx) ** 2
            return lr * dx

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"rho": 0.5}, {"rho": 0.0}, {"eps": 1e-2}])
def test_adadelta_scales_by_the_ratio_of_running_sizes(options, precision):
    check(gradtx.adadelta(1.0, **options), adadelta(**options), precision)


@both_precisions
def test_weight_decay_is_part_of_the_gradient(precision):
    check(gradtx.adadelta(0.5, weight_decay=0.3), adadelta(0.5, decay=0.3), precision)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    check(gradtx.adadelta(1.0, weight_decay=0.3), adadelta(decay=0.3), complex_leaves=("dense/kernel", "scale"))


def test_a_mask_says_what_decays():
    check_same(gradtx.adadelta(1.0, weight_decay=0.3, weight_decay_mask=False), gradtx.adadelta(1.0))


def test_without_a_rate_the_updates_keep_the_gradients_sign():
    g = jnp.array([1.0, -2.0])
    tx = gradtx.adadelta()
    updates, _ = tx.update(g, tx.init(g), g)
    assert np.all(np.sign(updates) == np.sign(g))


def test_the_step_does_not_change_with_the_gradients_scale():
    """In the limit of a small eps beside the squares."""
    tx, g = gradtx.adadelta(1.0, eps=1e-12), np.random.default_rng(0).uniform(0.5, 2, (10, 5))

    def run(g):
        return jax.lax.scan(lambda state, g: tx.update(g, state, g)[::-1], tx.init(g[0]), g)[1]

    np.testing.assert_allclose(run(jnp.asarray(g, jnp.float32)), run(jnp.asarray(1e3 * g, jnp.float32)), rtol=1e-5)


def test_the_averages_of_narrow_parameters_are_float32():
    state = gradtx.scale_by_adadelta().init(jnp.ones(3, "float16"))
    assert state.e_g.dtype == state.e_x.dtype == jnp.float32


def test_in_float16_zero_gradients_give_zero():
    g = jnp.zeros(3, "float16")
    tx = gradtx.scale_by_adadelta()
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], np.zeros(3))


@pytest.mark.parametrize(("argument", "value"), [("rho", 1.0), ("rho", -0.1), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adadelta`.*{argument}.*{value}"):
        gradtx.adadelta(0.1, **{argument: value})

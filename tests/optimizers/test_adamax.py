"""adamax, adamaxw: Kingma and Ba 2015, Algorithm 2; decay as in Loshchilov and Hutter 2019."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adamax(lr, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0):
    """u = max(b2 u, |g| + eps), theta = theta (1 - lr wd) - lr / (1 - b1^t) m / u.

    Algorithm 2 has no eps; added to |g|, it keeps u above zero.
    """

    @leafwise
    def rule(p):
        m, u = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, u
            m = b1 * m + (1 - b1) * g
            u = np.maximum(b2 * u, abs(g) + eps)
            return p * (1 - lr * weight_decay) - lr / (1 - b1**t) * m / u - p

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"b1": 0.5, "b2": 0.8}, {"eps": 0.1}, {"b1": 0.0, "eps": 0.0}])
def test_the_step_is_divided_by_the_largest_faded_gradient(options, precision):
    check(gradtx.adamax(0.02, **options), adamax(0.02, **options), precision)


@both_precisions
def test_adamaxw_shrinks_the_parameters_by_the_rate_times_the_decay(precision):
    check(gradtx.adamaxw(0.02, weight_decay=0.3), adamax(0.02, weight_decay=0.3), precision)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    tx = gradtx.adamaxw(0.02, b2=0.8, weight_decay=0.3)
    check(tx, adamax(0.02, b2=0.8, weight_decay=0.3), complex_leaves=("dense/kernel",))


def test_adamaxw_without_decay_is_adamax():
    check_same(gradtx.adamaxw(0.02, weight_decay=0.0), gradtx.adamax(0.02))


def test_adamaxw_decays_only_what_its_mask_takes():
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    grads = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
    tx = gradtx.adamaxw(1.0, weight_decay=0.5, mask={"kernel": True, "bias": False})
    updates, _ = tx.update(grads, tx.init(params), params)
    np.testing.assert_array_equal(updates["kernel"], np.full((2, 2), -0.5))
    np.testing.assert_array_equal(updates["bias"], np.zeros(2))


def test_no_step_without_momentum_is_larger_than_the_rate():
    """The abstract's bound: |delta theta| <= lr."""
    tx = gradtx.scale_by_adamax(b1=0.0)
    p = jnp.zeros(1000)
    state = tx.init(p)
    rng = np.random.default_rng(0)
    for _ in range(10):
        g = jnp.asarray(rng.standard_cauchy(1000), jnp.float32)
        updates, state = tx.update(g, state, p)
        assert np.max(np.abs(updates)) <= 1 + 2e-7  # g / |g| by way of a reciprocal: two roundings


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adamax`.*{argument}.*{value}"):
        gradtx.scale_by_adamax(**{argument: value})

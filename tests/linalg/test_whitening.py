"""Preconditioners that whiten, tensor by tensor; the forms are proved in tests/optimizers/test_psgd_whiten.py."""

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.whitening import FORMS, refitted, whitened

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)
V = jnp.asarray(RNG.normal(size=(2, 3, 4)), jnp.float32)
Q = [jnp.asarray(np.triu(RNG.normal(size=(2, 3, 3))) + 2 * np.eye(3), jnp.float32), jnp.ones((2, 4))]
ZERO = jnp.zeros((2, 2))


def fit(form, x, factors, bounds=ZERO, rate=0.1):
    return refitted(x, V, factors, bounds, rate, 0.9, FORMS[form], 2)


def test_p_is_the_square_of_q_or_q():
    np.testing.assert_allclose(whitened(X, Q, FORMS["QEQ"]), Q[0].mT @ (Q[0] @ X), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whitened(X, Q, FORMS["QUAD4P"]), Q[0] @ X, rtol=1e-4, atol=1e-4)


def test_what_is_too_large_is_the_largest_number():
    u = whitened(1e30 * X, [1e10 * q for q in Q], FORMS["QEQ"])
    assert np.all(np.isfinite(u)) and np.max(np.abs(u)) == np.finfo(np.float32).max


@pytest.mark.parametrize("form", FORMS)
def test_how_the_product_is_divided_among_the_factors_does_not_matter(form):
    first = fit(form, X, Q)
    second = fit(form, X, [8 * Q[0], Q[1] / 8])
    for new in (first, second):
        sizes = [np.max(np.abs(q), axis=tuple(range(1, q.ndim))) for q in new[0]]
        np.testing.assert_allclose(*sizes, rtol=0.5)  # balanced, and then fitted
    for a, b in zip((*first[0], first[1]), (*second[0], second[1]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("x", [jnp.zeros_like(X), jnp.full_like(X, jnp.nan), jnp.full_like(X, jnp.inf)])
def test_of_nothing_or_what_is_no_number_nothing_is_learned(form, x):
    (q, diagonal), bounds = fit(form, x.at[1].set(X[1]), Q)
    np.testing.assert_array_equal(q[0], Q[0][0])
    np.testing.assert_array_equal(diagonal[0], Q[1][0])
    assert not np.array_equal(q[1], Q[0][1]) and np.all(bounds[0] == 0) and np.all(bounds[1] > 0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_gradient_is_too_large_or_too_small(form, scale):
    factors, bounds = fit(form, scale * X, Q)
    assert all(np.all(np.isfinite(x)) for x in (*factors, bounds))
    grown = np.max(np.abs(factors[1])) * np.max(np.abs(factors[0])) > np.max(np.abs(Q[0])) * np.max(np.abs(Q[1]))
    assert grown == (scale < 1)

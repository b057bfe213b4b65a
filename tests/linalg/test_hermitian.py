"""norm_bound and rotated_to_hermitian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.hermitian import norm_bound, rotated_to_hermitian

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 7, 7))


@pytest.mark.parametrize("rounds", [1, 2, 4])
@pytest.mark.parametrize("sign", [1, -1])
def test_the_bound_is_below_the_norm_and_near(rounds, sign):
    a = X + sign * X.swapaxes(1, 2)
    norms = np.linalg.norm(a, 2, axis=(1, 2))
    share = np.asarray(norm_bound(jnp.asarray(a, jnp.float32), rounds)) / norms
    assert np.all(share < 1 + 1e-5) and np.all(share > (0.75, 0.85, 0.95)[(1, 2, 4).index(rounds)])


def test_of_one_direction_it_is_the_norm():
    a = jnp.stack([jnp.outer(x, x) for x in jnp.asarray(X[:, 0], jnp.float32)])
    np.testing.assert_allclose(norm_bound(a, 1), jnp.sum(jnp.asarray(X[:, 0], jnp.float32) ** 2, axis=1), rtol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_no_scale_is_too_small_or_too_large(scale):
    a = jnp.asarray(X + X.swapaxes(1, 2), jnp.float32)
    np.testing.assert_allclose(norm_bound(scale * a, 2) / scale, norm_bound(a, 2), rtol=1e-5)


def test_of_zeros_it_is_zero():
    np.testing.assert_array_equal(norm_bound(jnp.zeros((2, 3, 3)), 1), [0, 0])


@pytest.mark.parametrize("order", [2, 3])
def test_it_rotates(order):
    q = jnp.asarray(X + 3 * np.eye(7), jnp.float32)
    gram = lambda q: q.mT @ q
    np.testing.assert_allclose(gram(rotated_to_hermitian(q, order)), gram(q), rtol=2e-3, atol=2e-2)


@pytest.mark.parametrize("order", [2, 3])
def test_over_and_over_it_makes_hermitian(order):
    """The polar factor, where the determinant is positive and no saddle is near."""
    spd = np.einsum("aij,akj->aik", X, X) / 7 + np.eye(7)
    turns = np.linalg.qr(np.eye(7) + 0.1 * X)[0]
    turns *= np.sign(np.einsum("aii->ai", turns))[:, None]
    q = jnp.asarray(turns @ spd, jnp.float32)
    turned = jax.lax.fori_loop(0, 100, lambda _, q: rotated_to_hermitian(q, order), q)
    np.testing.assert_allclose(turned, turned.mT, atol=1e-3)


@pytest.mark.parametrize("order", [2, 3])
def test_what_is_hermitian_stays(order):
    a = jnp.asarray(X + X.swapaxes(1, 2), jnp.float32)
    np.testing.assert_array_equal(rotated_to_hermitian(a, order), a)


def test_complex_matrices():
    z = jnp.asarray(X[:5] + 1j * X[5:10] + 4 * np.eye(7), jnp.complex64)
    skew = z - z.mT.conj()
    assert np.all(norm_bound(skew, 4) < np.linalg.norm(np.asarray(skew), 2, axis=(1, 2)) * (1 + 1e-5))
    turned = jax.lax.fori_loop(0, 100, lambda _, q: rotated_to_hermitian(q, 2), z)
    np.testing.assert_allclose(turned, turned.mT.conj(), atol=1e-3)

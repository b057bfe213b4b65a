"""nnls, beside SciPy's active-set method, the conditions of Karush, Kuhn and Tucker, and Optax."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

import gradtx


def draw(m, n, k=(), seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, n)), rng.normal(size=(m, *k))


@pytest.mark.parametrize("k", [(), (4,)])
@pytest.mark.parametrize("shape", [(12, 5), (6, 6), (5, 9)])
def test_it_is_the_least(shape, k):
    a, b = draw(*shape, k)
    with jax.enable_x64(True):
        x = np.asarray(jax.jit(lambda: gradtx.nnls(a, b, 20_000))())
    assert x.shape == (shape[1], *k) and (x >= 0).all()
    slope = a.T @ (a @ x - b)
    assert (slope > -1e-6).all() and (np.abs(slope * x) < 1e-6).all()  # after 20,000 rounds, about 1 / k^2
    for column, target in zip(x.reshape(len(x), -1).T, b.reshape(len(b), -1).T, strict=True):
        _, least = scipy.optimize.nnls(a, target)
        np.testing.assert_allclose(np.linalg.norm(a @ column - target), least, atol=1e-6)


@pytest.mark.parametrize("bound", [None, 40.0])
@pytest.mark.parametrize("iters", [0, 1, 2, 7, 100])
def test_the_rounds_are_the_formulas_and_optaxs(iters, bound):
    a, b = draw(8, 5)
    q, r = a.T @ a, a.T @ b
    largest = min(np.linalg.norm(q), np.abs(q).sum(0).max()) if bound is None else bound
    x = p = np.zeros(5)
    c = 0.0
    for _ in range(iters):
        following = (1 + np.sqrt(1 + 4 * c**2)) / 2
        new = np.maximum(p - (q @ p - r) / largest, 0)
        x, p, c = new, new + (c - 1) / following * (new - x), following
    with jax.enable_x64(True):
        # rounding alone
        np.testing.assert_allclose(gradtx.nnls(a, b, iters, L=bound), x, atol=1e-12)
        np.testing.assert_allclose(optax.nnls(jnp.asarray(a), jnp.asarray(b), iters, L=bound), x, atol=1e-12)


def test_narrow_numbers_are_computed_in_float32():
    a, b = (jnp.asarray(x, "bfloat16") for x in draw(20, 11))
    x = gradtx.nnls(a, b, 300)
    wide = gradtx.nnls(a.astype("float32"), b.astype("float32"), 300)
    assert x.dtype == jnp.bfloat16
    np.testing.assert_array_equal(x, wide.astype("bfloat16"))


def test_the_derivative_is_the_least_squares_solutions():
    """Where all entries are positive x = (A^T A)^-1 A^T b, whose derivative by b has that matrix."""
    a = draw(8, 3)[0]
    b = a @ np.array([1.0, 2.0, 3.0])
    with jax.enable_x64(True):
        got = jax.jacobian(lambda b: gradtx.nnls(a, b, 2000))(jnp.asarray(b))
        np.testing.assert_allclose(got, np.linalg.pinv(a), atol=1e-8)
        assert jnp.isfinite(jax.grad(lambda a: jnp.sum(gradtx.nnls(a, b, 5)))(jnp.zeros_like(a))).all()


def test_nothing_gives_zeros():
    np.testing.assert_array_equal(gradtx.nnls(jnp.zeros((3, 2)), jnp.ones(3), 5), jnp.zeros(2))
    assert gradtx.nnls(jnp.zeros((3, 0)), jnp.ones(3), 5).shape == (0,)


def test_what_does_not_fit_is_named():
    for a, b in ((jnp.ones(3), jnp.ones(3)), (jnp.ones((3, 2)), jnp.ones(2)), (jnp.ones((3, 2)), jnp.ones(()))):
        with pytest.raises(ValueError, match="`nnls`: A must be m x n"):
            gradtx.nnls(a, b, 3)
    with pytest.raises(ValueError, match="`nnls`: iters must be"):
        gradtx.nnls(jnp.ones((3, 2)), jnp.ones(3), -1)

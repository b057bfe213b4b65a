"""Bases that follow the eigenvectors of a matrix, and tensors in them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.eigenbasis import eigenbasis, reordered, rotated, rotated_back, second_moment, turned


@pytest.fixture(autouse=True)
def everywhere(strict):
    """Without implicit promotion."""


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def orthogonal(n, d, seed=0):
    return jnp.asarray(np.linalg.qr(draw(n, d, d, seed=seed))[0])


def test_turning_back_is_the_inverse_and_a_side_without_basis_stays():
    x, q = jnp.asarray(draw(2, 3, 4, 5)), [orthogonal(2, 3), None, orthogonal(2, 5)]
    low = rotated(x, q)
    np.testing.assert_allclose(low[1], np.einsum("abc,ai,ck->ibk", x[1], q[0][1], q[2][1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(rotated_back(low, q), x, rtol=1e-4, atol=1e-5)


def test_products_in_bfloat16_have_its_errors_and_sums_have_not():
    x, q = jnp.asarray(draw(1, 64, 64)), [orthogonal(1, 64)] * 2
    exact, narrow = rotated(x, q), rotated(x, q, dtype="bfloat16")
    assert narrow.dtype == jnp.float32
    assert 1e-4 < float(jnp.max(jnp.abs(narrow - exact)) / jnp.max(jnp.abs(exact))) < 2e-2


def test_iteration_comes_to_the_decomposition():
    x = draw(2, 4, 9)
    factor = jnp.asarray(np.einsum("aij,akj->aik", x * np.geomspace(1, 30, 4)[:, None].astype(np.float32), x))
    factor = (factor + factor.mT) / 2 + 40 * jnp.eye(4)[None]
    want, *_ = eigenbasis(factor, orthogonal(2, 4), False, sort=True)
    q = orthogonal(2, 4)
    for _ in range(200):
        q, *_ = eigenbasis(factor, q, True, sort=True)
    np.testing.assert_allclose(jnp.abs(want.mT @ q), np.broadcast_to(np.eye(4), (2, 4, 4)), atol=1e-2)
    values = jnp.diagonal(want.mT @ factor @ want, axis1=1, axis2=2)
    assert np.all(np.diff(values) < 0)


@pytest.mark.parametrize("iterate", [False, True, "traced"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_decomposition_that_fails_keeps_the_basis_of_that_matrix_alone(bad, iterate):
    x = jnp.asarray(draw(2, 3, 5))
    factor, old = second_moment(x, 0).at[0, 1, 1].set(bad), orthogonal(2, 3)
    step = jax.jit(lambda flag: eigenbasis(factor, old, flag, sort=True))
    new, turn, order = step(True) if iterate == "traced" else eigenbasis(factor, old, iterate, sort=True)
    np.testing.assert_array_equal(new[0], old[0])
    np.testing.assert_array_equal(turn[0], np.eye(3))
    np.testing.assert_array_equal(order[0], np.arange(3))
    assert np.all(np.isfinite(new[1])) and not np.allclose(new[1], old[1])


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("iterate", [False, True])
def test_the_scale_of_the_matrix_does_not_matter(scale, iterate):
    factor = second_moment(jnp.asarray(draw(1, 3, 5)), 0)
    factor = factor / jnp.max(jnp.abs(factor))
    want, *_ = eigenbasis(factor, orthogonal(1, 3), iterate, sort=True)
    got, *_ = eigenbasis(factor * scale, orthogonal(1, 3), iterate, sort=True)
    np.testing.assert_allclose(jnp.abs(want.mT @ got)[0], np.eye(3), atol=1e-3)


@pytest.mark.parametrize("factor", [np.zeros((1, 3, 3)), np.ones((1, 3, 3)), np.diag([1.0, 0, 0])[None]])
@pytest.mark.parametrize("iterate", [False, True])
def test_a_rank_below_full_gives_an_orthogonal_basis(factor, iterate):
    new, *_ = eigenbasis(jnp.asarray(factor, jnp.float32), orthogonal(1, 3), iterate, sort=True)
    np.testing.assert_allclose(new.mT @ new, np.eye(3)[None], atol=1e-5)


def test_coordinates_turn_with_the_basis():
    x, old = jnp.asarray(draw(1, 3, 4)), [orthogonal(1, 3), orthogonal(1, 4)]
    results = [eigenbasis(second_moment(x, k), q, True, sort=True) for k, q in enumerate(old)]
    want = rotated(x, [new for new, *_ in results])
    np.testing.assert_allclose(turned(rotated(x, old), [t for _, t, _ in results]), want, rtol=1e-3, atol=1e-4)


def test_squares_move_by_side():
    x = jnp.arange(6.0).reshape(1, 2, 3)
    np.testing.assert_array_equal(
        reordered(x, [jnp.array([[1, 0]]), jnp.array([[2, 0, 1]])])[0], [[5, 3, 4], [2, 0, 1]]
    )

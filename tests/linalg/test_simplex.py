"""The projection onto a simplex: exact, by rounds that end, with exact derivatives, in parts of any shapes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg import simplex

RNG = np.random.default_rng(0)


def by_sorting(x, scale=1.0):
    """The largest number k of entries whose common shift leaves all of them positive."""
    u = np.sort(np.ravel(x))[::-1]
    taus = (np.cumsum(u) - scale) / np.arange(1, u.size + 1)
    return np.maximum(x - taus[np.nonzero(u > taus)[0][-1]], 0)


CASES = {
    "spread": RNG.normal(size=40) * 2,
    "near": RNG.normal(size=40) * 1e-3,
    "equal": np.full(7, 3.0),
    "a round for each entry": -(2.0 ** np.arange(12)) + 1,
    "ties": np.repeat([1.0, 0.5, 0.0, -1.0], 3),
    "one": np.array([-5.0]),
    "excluded": np.array([0.0, -np.inf, 0.25]),
    "already there": RNG.dirichlet(np.ones(6)),
}


@pytest.mark.parametrize("scale", [1.0, 0.01, 300.0])
@pytest.mark.parametrize("x", CASES.values(), ids=CASES)
def test_it_is_the_projection_by_sorting(x, scale):
    with jax.enable_x64(True):
        (found,) = jax.jit(simplex.project)([jnp.asarray(x)], scale)
    # one sum of 40 numbers, of the size of x or of the scale
    np.testing.assert_allclose(found, by_sorting(x, scale), rtol=1e-12, atol=1e-14 * max(scale, 10))


def test_parts_are_one_vector():
    parts = [RNG.normal(size=(3, 2)), RNG.normal(size=()), np.zeros((0, 4)), RNG.normal(size=5)]
    with jax.enable_x64(True):
        found = simplex.project([jnp.asarray(x) for x in parts], 2.0)
    assert [x.shape for x in found] == [x.shape for x in parts]
    joined = [np.concatenate([np.ravel(x) for x in xs]) for xs in (parts, found)]
    np.testing.assert_allclose(joined[1], by_sorting(joined[0], 2.0), rtol=1e-12, atol=1e-15)


def test_a_common_number_costs_no_digits():
    x = np.array([0.25, 0.5, -1.0], np.float32)
    (found,) = simplex.project([jnp.asarray(x + 2**14)], 1.0)  # the sums are exact
    np.testing.assert_array_equal(found, [0.375, 0.625, 0])


def test_scale_zero_gives_zeros_and_nothing_gives_nothing():
    np.testing.assert_array_equal(simplex.project([jnp.array([1.0, -2.0])], 0.0)[0], [0, 0])
    assert simplex.project([], 1.0) == [] and simplex.project([jnp.zeros((0, 3))], 1.0)[0].shape == (0, 3)


def test_nan_makes_everything_nan():
    assert jnp.all(jnp.isnan(simplex.project([jnp.array([1.0, jnp.nan]), jnp.zeros(2)], 1.0)[1]))


def test_derivatives_are_exact():
    """By x: on the support, the identity less the mean; by the scale: an equal share for each entry of it."""
    with jax.enable_x64(True):
        x = jnp.asarray(RNG.normal(size=8))
        p = lambda x, scale: simplex.project([x], scale)[0]
        support = np.asarray(p(x, 1.5) > 0)
        assert 1 < support.sum() < 8
        by_x, by_scale = jax.jit(jax.jacobian(p, (0, 1)))(x, 1.5)
        np.testing.assert_allclose(by_x, np.diag(support) - np.outer(support, support) / support.sum(), atol=1e-15)
        np.testing.assert_allclose(by_scale, support / support.sum(), rtol=1e-15)
        np.testing.assert_allclose(jax.jacfwd(p)(x, 1.5), by_x, atol=1e-15)


def test_rows_are_mapped_and_nothing_is_sorted():
    x = RNG.normal(size=(5, 6)).astype(np.float32)
    fn = jax.jit(jax.vmap(lambda x: simplex.project([x], 1.0)[0]))
    np.testing.assert_allclose(fn(x), [by_sorting(row) for row in x], atol=1e-6)  # float32
    assert "sort" not in fn.lower(x).as_text()

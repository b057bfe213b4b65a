"""Second moments of the sides of tensors, and what is made of them, beside NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.axes import every_axis
from gradtx.linalg.kronecker import add_second_moments, multiplied, on_side, roots_when, second_moments


def draw(*shape, seed=0, is_complex=False):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    return x + 1j * rng.normal(size=shape) if is_complex else x


def unfolded(x, side):
    return np.moveaxis(x, side, 0).reshape(x.shape[side], -1)


@pytest.mark.parametrize("is_complex", [False, True])
@pytest.mark.parametrize("shape", [(3,), (3, 4), (2, 3, 4), (2, 3, 2, 2)])
def test_sides_are_those_of_the_unfolded_tensor(shape, is_complex):
    with jax.enable_x64(True):
        x = draw(2, *shape, is_complex=is_complex)
        for side, n in enumerate(shape):
            got = second_moments(jnp.asarray(x), side)
            for one, of in zip(got, x, strict=True):
                m = unfolded(of, side)
                np.testing.assert_allclose(one, m @ m.conj().T, atol=1e-12)
            a = draw(2, n, n, seed=1, is_complex=is_complex)
            for one, of, by in zip(on_side(jnp.asarray(x), side, jnp.asarray(a)), x, a, strict=True):
                np.testing.assert_allclose(unfolded(one, side), by @ unfolded(of, side), atol=1e-12)


def test_products_in_bfloat16_have_float32_sums():
    x = jnp.asarray(draw(1, 4, 64), "float32")
    got, want = second_moments(x, 0, dtype="bfloat16"), second_moments(x, 0)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, atol=2**-7 * np.abs(want).max())  # 8 bits
    assert np.abs(got - want).max() > 0


def test_what_is_large_counts_scaled_down_and_what_is_not_finite_does_not():
    axes, old = [every_axis(2)], [(jnp.eye(2), jnp.eye(3))]
    x = jnp.asarray(draw(2, 3), "float32")
    ((left, right),) = add_second_moments(old, [x * 1e30], axes, 0.5, 0.5)
    for f, m in ((left, x @ x.T), (right, x.T @ x)):
        assert np.all(np.isfinite(f))
        np.testing.assert_allclose(f / jnp.max(jnp.abs(f)), m / jnp.max(jnp.abs(m)), atol=1e-5)
    for bad in (np.nan, np.inf):
        ((left, right),) = add_second_moments(old, [x.at[0, 0].set(bad)], axes, 0.5, 0.5)
        np.testing.assert_array_equal(left, np.eye(2))
        np.testing.assert_array_equal(right, np.eye(3))


def test_sides_without_a_matrix_stay():
    x, a = draw(3, 2), draw(2, 2, seed=1)
    got, same = multiplied(
        [jnp.asarray(x), jnp.asarray(x)], [(None, jnp.asarray(a)), (None, None)], [every_axis(2)] * 2
    )
    np.testing.assert_allclose(got, x @ a.T, rtol=1e-5)
    np.testing.assert_array_equal(same, jnp.asarray(x))


def test_roots_of_one_size_are_computed_together_whatever_side_or_leaf_they_are_of():
    """So 148 leaves of few shapes cost the compiler a decomposition for each size and exponent."""
    leaves = [jnp.asarray(draw(4, 6, seed=i), "float32") for i in range(20)]
    leaves += [jnp.asarray(draw(6, 4, seed=i), "float32") for i in range(20)]
    axes = [every_axis(2)] * 40
    factors = [(x @ x.T, x.T @ x) for x in leaves]
    roots = [tuple(jnp.eye(len(f)) for f in some) for some in factors]
    numbers = {"eps": 1.0, "relative_eps": 0.0, "threshold": 0.1}

    def compute(due, roots, factors):
        return roots_when(due, roots, factors, axes, [(0.25, 0.25)] * 40, 1.0, numbers, method="eigh")

    lowered = jax.jit(compute).trace(True, roots, factors).lower(lowering_platforms=("cuda",)).as_text()
    assert 0 < lowered.count("syevd") + lowered.count("syevj") + lowered.count("syev_batched") <= 4 * 2
    for due in (True, False):
        found = jax.jit(compute)(jnp.array(due), roots, factors)
        for some, second in zip(found[::7], factors[::7], strict=True):
            for p, f in zip(some, second, strict=True):
                values, q = np.linalg.eigh(np.asarray(f, np.float64) + np.eye(len(f)))
                want = q @ np.diag(values**-0.25) @ q.T if due else np.eye(len(f))
                np.testing.assert_allclose(p, want, atol=1e-5)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import moments
from gradtx.formulas import alike


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999, 0.99999])
def test_an_average_divided_by_its_mass_is_the_weighted_mean(decay):
    xs = np.random.default_rng(0).normal(size=20) + 3
    average = jnp.float32(0)
    for t, x in enumerate(xs, 1):
        average = moments.ema(average, jnp.float32(x), jnp.float32(decay))
        kept = np.float64(np.float32(decay))
        weights = kept ** np.arange(t - 1, -1, -1)
        expected = np.sum(weights * xs[:t]) / np.sum(weights)
        # float32 rounds each of t additions by 6e-8 of the value
        np.testing.assert_allclose(average / moments.ema_mass(jnp.float32(decay), t), expected, rtol=t * 2e-7)


def test_the_mass_is_exact_for_decays_near_one():
    decay = jnp.float32(0.99999)
    exact = -np.expm1(1 * np.log(np.float64(decay)))
    np.testing.assert_allclose(moments.ema_mass(decay, 1), exact, rtol=3e-7)  # a few roundings of float32


def test_the_average_of_a_constant_reaches_it():
    average = jax.lax.fori_loop(0, 20_000, lambda _, m: moments.ema(m, 1.0, 0.999), jnp.float32(0))
    # each step rounds by half a unit in the last place, 3e-8, and the average remembers 1 / (1 - decay) steps
    assert abs(average - 1) < 6e-8 / (1 - 0.999)


def test_squares_of_complex_numbers_are_real():
    x = jnp.array([3 + 4j])
    assert moments.abs_sq(x) == 25 and moments.abs_sq(x).dtype == jnp.float32


def test_the_root_has_a_finite_slope_at_zero():
    assert jax.grad(moments.root)(0.0) == 0
    assert jax.grad(lambda x: 1 / (moments.root(x) + 1e-8))(0.0) == 0
    np.testing.assert_allclose(moments.root(jnp.array([0.0, 4.0])), [0, 2], atol=3e-19)


def test_the_rms_of_nothing_is_zero():
    nothing, three = alike(moments.rms, [(jnp.zeros((0, 3)),), (jnp.array([[3.0, -3.0], [3.0, 3.0]]),)])
    assert moments.mean_square(jnp.zeros((0, 3))) == 0
    np.testing.assert_allclose([nothing, three], [0, 3], atol=3e-19)  # the least root


@pytest.mark.parametrize("shape", [(), (0, 3), (7,), (5, 300), (2, 3, 4), (moments.LONG + 1,), (moments.LONG + 1, 2)])
@pytest.mark.parametrize("dtype", [np.float32, np.complex64])
def test_two_sums_of_squares_in_one_pass(one_device, shape, dtype):
    rng = np.random.default_rng(1)
    x, y = (np.asarray(rng.normal(size=shape), dtype) * dtype(1 + 1j if dtype is np.complex64 else 1) for _ in range(2))
    sums = jax.jit(lambda x, y: moments.sums_of_squares((x, y)))(x, y)
    assert [s.dtype for s in sums] == [jnp.float32] * 2
    # float32: a sum of n positive numbers rounds by less than n / 2 units of 6e-8, in practice by far less
    np.testing.assert_allclose(sums, [np.sum(np.abs(z.astype(np.complex128)) ** 2) for z in (x, y)], rtol=1e-5)


def test_equal_entries_do_not_stall_the_sum(one_device):
    ones = jnp.ones((2, 3 * 2**14)), jnp.ones((2, 3 * 2**14))
    sums = jax.jit(lambda x, y: moments.sums_of_squares((x, y)))
    assert sums(*ones) == (6 * 2**14, 6 * 2**14)
    tenth = jnp.full((512, 2**14), 0.1)
    exact = 512 * 2**14 * np.float64(np.float32(0.1)) ** 2
    np.testing.assert_allclose(sums(tenth, tenth), [exact, exact], rtol=1e-3)  # LONG roundings


def test_the_slope_of_two_sums_is_that_of_each(one_device):
    x, y = jnp.arange(6.0).reshape(2, 3), jnp.ones((2, 3))
    together = jax.grad(
        lambda x, y: jnp.vdot(jnp.array([2.0, 3.0]), jnp.stack(moments.sums_of_squares((x, y)))), (0, 1)
    )
    np.testing.assert_array_equal(together(x, y), (4 * x, 6 * y))
    np.testing.assert_array_equal(jax.jit(together)(x, y), (4 * x, 6 * y))
    z = jnp.array([1 + 2j])
    np.testing.assert_array_equal(
        jax.grad(lambda z: moments.sums_of_squares((z, z))[0])(z), jax.grad(lambda z: jnp.sum(moments.abs_sq(z)))(z)
    )


def test_what_is_computed_again_is_the_same(one_device):
    x = jnp.arange(3.0)
    assert moments.again(x)[0] is x  # eager: nothing to keep from fusing
    step = lambda x: jnp.sum(moments.again(x)[0] ** 2)
    assert jax.jit(step)(x) == step(x)
    np.testing.assert_array_equal(jax.jit(jax.grad(step))(x), 2 * x)
    np.testing.assert_array_equal(jax.jit(jax.vmap(step))(x[:, None]), x**2)

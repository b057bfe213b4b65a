import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import moments


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
    np.testing.assert_allclose(moments.root(jnp.array([0.0, 4.0])), [0, 2], atol=2e-19)


def test_the_rms_of_nothing_is_zero():
    assert moments.mean_square(jnp.zeros((0, 3))) == 0
    np.testing.assert_allclose(moments.rms(jnp.array([[3.0, -3.0], [3.0, 3.0]])), 3.0)

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from examples.textbook import convergence


@pytest.fixture(scope="module")
def found():
    return convergence.measure(quick=True)


@pytest.mark.parametrize("p", [2.0, 4.0])
def test_powers_have_tangents_beyond_one(p):
    f = convergence.power(p)
    x = jnp.array([-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    each = jax.vmap(f)(x[:, None])
    inside = np.abs(x) <= 1
    np.testing.assert_allclose(each[inside], np.abs(x[inside]) ** p / p, rtol=1e-6)  # float32
    np.testing.assert_allclose(jax.grad(f)(x), np.clip(np.abs(x), 0, 1) ** (p - 1) * np.sign(x), rtol=1e-6)


def test_curvatures_go_from_mu_to_one_in_equal_ratios():
    h = np.asarray(convergence.curvatures(0.03))
    np.testing.assert_allclose([h[0], h[-1]], [0.03, 1], rtol=1e-6)  # float32
    np.testing.assert_allclose(h[1:] / h[:-1], (1 / 0.03) ** (1 / 7), rtol=1e-5)


def test_without_noise_a_quadratic_follows_its_product():
    tx = gradtx.sgd(gradtx.inverse_time_decay(1.0, 0.5))
    ends = jnp.array([1, 3, 10])
    h = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    x, ways = np.ones(8), []
    for t in range(10):
        x = x * (1 - h / (1 + 0.5 * t))
        ways.append(x)
    of = lambda x: np.sum(h * x**2) / 2
    expected = [[of(ways[n - 1]), of(np.mean(ways[:n], axis=0))] for n in (1, 3, 10)]
    measured = convergence.follow(tx, convergence.quadratic(jnp.asarray(h, jnp.float32)), ends)
    np.testing.assert_allclose(measured, expected, rtol=1e-4)  # ten float32 products, squared


def test_with_steps_one_over_t_an_isotropic_quadratic_averages_its_noise(found):
    # curvatures are all mu = 1 and the first step is 1, so x is the noise's mean: E (f - f*) T / s^2 = 8 / 2 at every T
    scaled = found.strongly[-1, :, :, :, 0] * found.ends / np.square(convergence.SIGMAS)[:, None, None]
    error = scaled.std(axis=1, ddof=1) / np.sqrt(scaled.shape[1])
    assert np.all(np.abs(scaled.mean(axis=1) - 4) < 5 * error)  # 5 standard errors: 14 comparisons of 16 seeds
    assert convergence.constant(1.0) == pytest.approx(4)


def test_the_constant_is_what_the_variance_recursion_tends_to():
    mu, variance = 0.3, np.zeros(8)
    h = 0.3 ** np.linspace(1, 0, 8)
    for t in range(20_000):
        a = 1 / (1 + mu * t)
        variance = (1 - a * h) ** 2 * variance + a**2
    # the distance from the limit goes like 1 / T
    assert np.sum(h * variance) / 2 * mu * 20_000 == pytest.approx(convergence.constant(mu), rel=1e-3)


def test_seeds_differ_and_a_seed_gives_the_same_run_again(found):
    errors = found.slow[:, -1, 0]
    assert len(set(errors.tolist())) == len(errors)
    tx = convergence.decaying(gradtx.inverse_sqrt_decay(convergence.RATE), 1.0, 3)
    again = convergence.follow(tx, convergence.quadratic(convergence.curvatures(0.1)), jnp.asarray(found.ends))
    np.testing.assert_allclose(again, found.slow[3], rtol=1e-3)  # compiled alone it rounds otherwise, 1000 times


def test_a_power_law_is_fitted_exactly_and_its_interval_holds_it():
    ends = 2 ** np.arange(4, 13)
    exact = convergence.fitted(ends, np.tile(3.0 * ends**-0.75, (5, 1)), resamples=50)
    np.testing.assert_allclose(exact, -0.75, rtol=1e-12)
    noisy = np.random.default_rng(0).chisquare(4, (200, len(ends))) / ends
    slope = convergence.fitted(ends, noisy)
    assert slope.low < -1 < slope.high
    assert 0.01 < slope.high - slope.low < 0.1


@pytest.mark.parametrize(
    ("slope", "said"),
    [
        ((-0.5, -0.52, -0.48), "as the theory says"),
        ((-0.6, -0.61, -0.57), "steeper"),
        ((-0.4, -0.42, -0.38), "flatter"),
    ],
)
def test_a_verdict_weighs_the_interval(slope, said):
    assert convergence.verdict(convergence.Slope(*slope), -0.5) == said


def test_averages_beat_the_last_iterate_where_the_minimum_is_round(found):
    for name in convergence.POWERS:
        last, average = found.convex[name][:, -1].mean(axis=0)
        assert average < last / 2


def test_the_report_has_every_exponent_and_constant(found):
    told = convergence.report(found)
    assert [len(table.rows) for table in told.tables] == [20, 4]
    assert all(len(row) == len(table.columns) for table in told.tables for row in table.rows)
    assert np.all(np.isfinite([e.slope for e in convergence.exponents(found)]))
    assert list(told.figures) == ["convergence"]
    assert "steps 1 / (mu t)" in " ".join(told.findings)

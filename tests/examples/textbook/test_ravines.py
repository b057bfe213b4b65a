import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from examples.textbook import ravines

SQUARES = ("SGD", "momentum", "Nesterov", "Newton")  # they do the same in turned coordinates


@pytest.fixture(scope="module")
def found():
    return ravines.measure(quick=True)


def test_a_surface_is_its_formula():
    p = np.random.default_rng(0).normal(size=(5, 2))
    u, v = (np.cos(0.4) * p[:, 0] + np.sin(0.4) * p[:, 1], np.cos(0.4) * p[:, 1] - np.sin(0.4) * p[:, 0])
    expected = (3 * u**2 - 2 * v**2) / 2 + 0.7 * v**4 / 4
    np.testing.assert_allclose(ravines.Surface(3.0, -2.0, 0.7, 0.4)(jnp.asarray(p)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SQUARES)
def test_turning_the_ravine_changes_nothing_for_methods_without_coordinates(found, name):
    turned, along = found.ravines[name].steps.T
    both = np.isfinite(turned)
    np.testing.assert_array_equal(both, np.isfinite(along))
    np.testing.assert_allclose(turned[both], along[both], atol=1)  # float32 may round the last update to either side


def test_newton_arrives_at_once_and_adam_ignores_the_condition_along_an_axis(found):
    np.testing.assert_array_equal(found.ravines["Newton"].steps, 1)
    along = found.ravines["Adam"].steps[:, 1]
    assert np.ptp(along) <= 2  # its eps, and roundings
    assert along[-1] < found.ravines["Adam"].steps[-1, 0]


def test_gradient_descent_arrives_when_its_factors_say(found):
    best = found.ravines["SGD"]
    for i in range(3):
        k, rate = ravines.CONDITIONS[i], float(best.rate[i, 0])
        t = np.arange(ravines.NEAR**-1)
        far = np.hypot((1 - rate) ** t, (1 - rate * k) ** t)
        assert abs(best.steps[i, 0] - np.argmax(far < ravines.NEAR)) <= 1  # float32


def test_what_does_not_arrive_is_infinite():
    steps = ravines.arrival(gradtx.sgd(0.0), ravines.Surface(1.0, 1.0), 5)
    diverged = ravines.arrival(gradtx.sgd(1e30), ravines.Surface(1.0, 1.0), 5)
    assert steps == diverged == np.inf


@pytest.mark.parametrize("name", ravines.AT_SADDLES)
def test_on_the_line_every_method_stays_and_newtons_original_always(found, name):
    on_line, noisy, beside = found.leaving[name].transpose(1, 0, 2)
    assert np.all(np.isinf(on_line))
    stays = name == ravines.ORIGINAL
    assert np.all(np.isinf(noisy) == stays)
    assert np.all(np.isinf(beside) == stays)


def test_gradient_descent_leaves_the_saddle_when_its_factor_says(found):
    # y grows 1 + 2 a times per update, x shrinks 1 - 2 a times; left when x^2 - y^2 < -1
    t = np.arange(300)
    y, x = 1e-6 * 1.1**t, 0.9**t
    expected = np.argmax(x**2 - y**2 < -1)
    np.testing.assert_allclose(found.leaving["SGD"][1, 2], expected, atol=1)  # float32's 1.1


def test_newton_doubles_the_distance_from_the_line(found):
    expected = np.argmax(4.0 ** np.arange(40) * 1e-12 > 1)  # x is 0 after the first
    np.testing.assert_array_equal(found.leaving["Newton"][1, 2], expected)


@pytest.mark.parametrize(("steps", "said"), [([np.inf, np.inf], "never"), ([7, 7], "7"), ([3, 4, 9], "4 (3 to 9)")])
def test_leaving_in_words(steps, said):
    assert ravines.leaving(np.array(steps, float)) == said


def test_the_exponent_is_of_the_ravines_where_it_arrived():
    steps = np.array([[3.0], [5.0], [50.0], [500.0], [np.inf]])
    assert ravines.growth(ravines.Best(steps, steps, steps)) == pytest.approx(1)
    assert np.isnan(ravines.growth(ravines.Best(np.full((5, 1), np.inf), steps, steps)))


def test_the_report_tells_every_method(found):
    told = ravines.report(found)
    assert [len(table.rows) for table in told.tables] == [8, 7]
    assert all(len(row) == len(table.columns) for table in told.tables for row in table.rows)
    assert told.tables[0].rows[5][1:] == ["1 (1)"] * 5
    assert list(told.figures) == ["ravines"]
    assert f"7 of 7 methods stay for all {ravines.WALK} updates" in " ".join(told.findings)

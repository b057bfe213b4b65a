"""activations: moments against closed forms, slopes against differences, ranges."""

from math import erf, exp, pi, sqrt

import numpy as np
import pytest

from examples.textbook import activations

NAMES = [*activations.FUNCTIONS]
ROUNDING = 1e-12  # float64, sums of 240 terms


def phi(x):
    """The standard normal distribution function."""
    return (1 + erf(x / sqrt(2))) / 2


@pytest.fixture(scope="module")
def found():
    return activations.measure(quick=True)


@pytest.fixture(scope="module")
def told(found):
    return activations.report(found)


@pytest.mark.parametrize(
    ("name", "signal", "gradient"),
    [
        ("ReLU", 1 / 2, 1 / 2),
        ("leaky ReLU", (1 + 0.01**2) / 2, (1 + 0.01**2) / 2),
        # E[(e^z - 1)^2; z < 0] by completing the square
        ("ELU", 1 / 2 + exp(2) * phi(-2) - 2 * exp(1 / 2) * phi(-1) + 1 / 2, 1 / 2 + exp(2) * phi(-2)),
        ("GELU", 1 / 3 + 1 / (2 * pi * sqrt(3)), None),  # E[z^2 Phi(z)^2] by parts, with E[Phi^2] = 1/3
    ],
)
def test_moments_are_their_closed_forms(found, name, signal, gradient):
    i = NAMES.index(name)
    assert found.signal[i] == pytest.approx(signal, rel=ROUNDING)
    if gradient is not None:
        assert found.gradient[i] == pytest.approx(gradient, rel=ROUNDING)


def test_the_quadrature_is_exact_for_polynomials_and_across_a_kink():
    z, w = activations.gaussian_quadrature()
    assert w @ z**2 == pytest.approx(1, rel=ROUNDING)
    assert w @ z**6 == pytest.approx(15, rel=ROUNDING)
    assert w @ abs(z) == pytest.approx(sqrt(2 / pi), rel=ROUNDING)


@pytest.mark.parametrize("name", NAMES)
def test_steins_identity_ties_each_function_to_its_slope(name):
    z, w = activations.gaussian_quadrature()
    value, slope = activations.with_slope(activations.FUNCTIONS[name], z)
    assert w @ slope == pytest.approx(w @ (z * value), rel=ROUNDING)


def test_slopes_are_those_of_the_curves(found):
    middle = (found.f[:, 2:] - found.f[:, :-2]) / (found.z[2:] - found.z[:-2])
    smooth = np.abs(found.z[1:-1]) > 0.02  # a difference across the kink is neither slope
    error = np.abs(middle - found.slope[:, 1:-1])[:, smooth]
    assert error.max() < 1e-4  # h^2 / 6 times a third derivative below 2, h = 0.01


def test_relu_has_two_slopes_at_0_and_sigmoid_one(found):
    np.testing.assert_array_equal(found.at_zero[NAMES.index("ReLU")], [0, 0, 1])
    np.testing.assert_allclose(found.at_zero[NAMES.index("sigmoid")], 0.25, rtol=1e-9)  # 1e-9 beside 0


def test_the_largest_slopes_are_the_known_ones(found):
    steepest = dict(zip(NAMES, found.steepest, strict=True))
    assert steepest["ReLU"] == steepest["softplus"] == 1
    assert steepest["sigmoid"] == pytest.approx(0.25)
    at_root_two = phi(sqrt(2)) + sqrt(2) * exp(-1) / sqrt(2 * pi)  # GELU'' = 0 at sqrt(2)
    assert steepest["GELU"] == pytest.approx(at_root_two, abs=1e-4)  # the grid misses sqrt(2) by less than 0.005


def test_ranges(told):
    ranges = {row[0]: row[1] for row in told.tables[0].rows}
    assert ranges == {
        "ReLU": "[0, inf)",
        "leaky ReLU": "(-inf, inf)",
        "ELU": "(-1, inf)",
        "GELU": "[-0.17, inf)",
        "SiLU": "[-0.278, inf)",
        "softplus": "(0, inf)",
        "tanh": "(-1, 1)",
        "sigmoid": "(0, 1)",
    }


def test_the_report_has_a_row_and_a_panel_for_each_function(told):
    (table,) = told.tables
    assert [row[0] for row in table.rows] == NAMES
    assert all(np.isfinite(row[3:]).all() for row in table.rows)
    assert [axes.get_title() for axes in told.figures["activations"].axes] == NAMES
    assert told.findings[0].startswith("One c keeps both the signal and the gradient for ReLU and leaky ReLU alone")
    assert "GELU (1.129), SiLU (1.100)" in told.findings[1]

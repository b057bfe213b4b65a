"""Intervals are Student's, and numbers that are not finite have none."""

import numpy as np
import pytest
from scipy import stats

from examples.textbook import spread

RUNS = np.array([3.0, 1.0, 2.5, 4.5])


@pytest.mark.parametrize("confidence", [0.95, 0.99])
def test_an_interval_is_students(confidence):
    middle, half = spread.interval(RUNS, confidence)
    expected = stats.ttest_1samp(RUNS, 0).confidence_interval(confidence)
    np.testing.assert_allclose([middle - half, middle + half], expected, rtol=1e-12)


def test_rows_have_intervals_of_their_own_and_nan_has_none():
    middle, half = spread.interval(np.stack([RUNS, np.where(RUNS > 4, np.nan, RUNS)]))
    np.testing.assert_array_equal(middle, [2.75, np.nan])
    assert np.isfinite(half[0]) and half[1] == np.inf


def test_words():
    assert spread.median(RUNS) == "2.75 (1 to 4.5)"
    assert spread.median(RUNS, ".1f") == "2.8 (1.0 to 4.5)"
    assert spread.mean(RUNS, ".2f") == f"2.75 ± {spread.interval(RUNS)[1]:.2g}"


def test_a_difference_is_marked_where_its_interval_leaves_out_0():
    assert spread.difference(-0.05, 0.02, 2) == "-0.05 ± 0.02 *"
    assert spread.difference(0.0123, 0.02) == "+0.012 ± 0.020"

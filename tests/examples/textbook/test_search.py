"""The searches spend what they may, keep what is best, and repeat."""

import numpy as np
import pytest

from examples.textbook import search
from gradtx import tuning


@pytest.fixture(scope="module")
def found():
    return search.measure(quick=True)


def test_a_way_keeps_the_best_and_leaves_nan_aside():
    seen = [([np.nan, 3.0], [9.0, 1.0]), ([4.0, np.inf], [5.0, 6.0]), ([2.0, 2.5], [7.0, 8.0])]
    way = search.way([2, 2, 2], seen)
    np.testing.assert_array_equal(way.spent, [2, 4, 6])
    np.testing.assert_array_equal(way.validation, [3, 3, 2])
    np.testing.assert_array_equal(way.test, [1, 1, 7])


def test_every_search_stays_within_the_budget_and_only_improves(found):
    spendable = search.QUICK.members * search.QUICK.steps
    assert found.ways.keys() == {"random", "Bayesian, TPE", "population-based", "halving"}
    for name, way in [(name, way) for name, ways in found.ways.items() for way in ways]:
        assert 0.7 * spendable <= way.spent[-1] <= spendable, name  # rungs round their steps down
        assert np.all(np.diff(way.validation) <= 0) and np.isfinite(way.validation[-1]), name


def test_the_grid_is_every_combination_within_the_space():
    members = tuning.grid(search.GRID)
    assert tuning.size(members) == search.FULL.members
    rates = {float(rate) for rate in np.asarray(members.links[-1].learning_rate)}
    low, high = search.SPACE.links[-1].learning_rate.support
    assert len(rates) == 3 and np.isclose(min(rates), low) and np.isclose(max(rates), high)


def test_a_function_for_some_steps_is_one_function():
    assert search.for_steps(search.train, 3) is search.for_steps(search.train, 3)


def test_the_report_names_every_search_and_says_what_was_left_out(found):
    told = search.report(found)
    best, against, times = told.tables
    assert [row[0] for row in best.rows] == list(found.ways)
    assert len(against.rows) == len(best.rows) - 1 and len(times.rows) == 1 and set(told.figures) == {"search"}
    assert "Gaussian process was left out" in told.findings[-1]


def test_differences_are_paired_by_seed_and_marked_beyond_the_noise():
    way = lambda last: search.Way(np.array([1]), np.array([last]), np.array([2 * last]))
    some, others = [way(1.0), way(3.0)], [way(0.5), way(2.5)]
    assert search.paired(some, others, "validation") == "+0.500 ± 0.000 *"
    assert search.paired(some, others, "test") == "+1.000 ± 0.000 *"
    assert "*" not in search.paired(some, others[::-1], "test")

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from examples.textbook import line_fit


@pytest.fixture(scope="module")
def found():
    return line_fit.measure(quick=True)


def test_all_runs_start_at_zero_and_have_a_hundred_updates(found):
    for ways in found.ways.values():
        assert ways.shape == (2, 20, 101, 2)
        np.testing.assert_array_equal(ways[:, :, 0], 0)


@pytest.mark.parametrize(("name", "factor"), [("SGD", 1.0), ("SGD, half the square", 0.5)])
@pytest.mark.parametrize("noise", [0, 1])
def test_sgds_mean_is_the_formulas(found, name, factor, noise):
    ways = found.ways[name][noise]
    expected = np.stack([line_fit.expected(factor, t) for t in range(101)])
    error = ways.std(axis=0, ddof=1) / np.sqrt(ways.shape[0])
    # 5 standard errors: 400 comparisons of 20 seeds; 1e-6: float32's rounding
    assert np.all(np.abs(ways.mean(axis=0) - expected) <= 5 * error + 1e-6)


def test_the_formula_is_its_recursion():
    mean = np.zeros(2)
    for _ in range(7):
        mean = mean - line_fit.RATE * np.array([2 / 3, 2]) * (mean - [2, 1])
    np.testing.assert_allclose(line_fit.expected(1.0, 7), mean, rtol=1e-14)


def test_the_first_update_is_the_gradients_and_adams_is_the_rate(found):
    first = found.ways["SGD"][0, :, 1]
    np.testing.assert_allclose(found.ways["SGD, half the square"][0, :, 1], first / 2, rtol=1e-6)  # float32
    np.testing.assert_allclose(found.ways["Adam"][:, :, 1], 0.1, rtol=1e-5)  # both gradients are negative
    assert np.all(first > 0)


def test_a_seed_gives_the_same_run_again(found):
    again = line_fit.fit(gradtx.sgd(jnp.float32(0.1)), 1.0, 0.1, 5)
    np.testing.assert_allclose(again, found.ways["SGD"][1, 5], rtol=1e-5)  # compiled alone, sums round otherwise


def test_the_tuned_rate_is_of_the_grid_and_beats_the_textbooks_where_it_was_chosen(found):
    assert all(rate in line_fit.GRID for rate in found.tuned)
    off = {name: np.linalg.norm(found.ways[name][0, :, -1] - line_fit.TRUE, axis=1) for name in ("Adam", "Adam, tuned")}
    assert np.median(off["Adam, tuned"]) < np.median(off["Adam"])


def test_a_share_has_the_exact_interval():
    # Clopper and Pearson: 0 of 20 has (0, 1 - 0.025^(1/20))
    assert line_fit.share(np.zeros(20, bool)) == f"0 of 20 seeds (share 0.00 to {1 - 0.025 ** (1 / 20):.2f})"


def test_the_findings_are_made_from_the_numbers(found):
    told = line_fit.findings(found)
    assert "0 of 20 seeds" in told[0]
    at_claim = found.ways["SGD"].copy()
    at_claim[:, :, -1] = [1.95, 0.99]
    told = line_fit.findings(found._replace(ways=found.ways | {"SGD": at_claim}))
    assert "20 of 20 seeds" in told[0] and "in the seeds' range" in told[0]


def test_the_report_has_its_tables_and_picture(found):
    told = line_fit.report(found)
    assert [len(table.rows) for table in told.tables] == [8, 2]
    assert all(np.isfinite(float(x)) for row in told.tables[1].rows for x in row[1:])
    assert list(told.figures) == ["line_fit"]
    assert len(told.findings) == 7

import numpy as np
import pytest

from examples.textbook import one_variable


@pytest.fixture(scope="module")
def found():
    return one_variable.measure(quick=True)


def test_every_step_multiplies_the_distance_to_the_minimum(found):
    steps = np.arange(found.x.shape[1])
    for rate, x in zip(one_variable.RATES.values(), found.x, strict=True):
        # float64: some ten roundings of numbers up to 3
        np.testing.assert_allclose(x, 0.5 + (1 - 2 * rate) ** steps * 2.5, rtol=0, atol=1e-14)


def test_the_rates_do_what_they_are_called(found):
    far = {name: np.abs(x - 0.5) for name, x in zip(one_variable.RATES, found.x, strict=True)}
    sides = {name: np.sign(x - 0.5) for name, x in zip(one_variable.RATES, found.x, strict=True)}
    assert far["good"][-1] < 1e-4 < far["oscillating"][-1] < far["small"][-1]
    assert np.all(np.diff(far["diverging"]) > 0)
    assert np.all(sides["small"] == 1)
    assert np.all(sides["oscillating"][1:] == -sides["oscillating"][:-1])


def test_the_minimum_is_where_the_text_says():
    assert one_variable.y(0.5) == -9 / 4
    assert one_variable.y(0.5 + 1e-3) > -9 / 4 < one_variable.y(0.5 - 1e-3)


def test_the_report_has_a_row_for_each_rate_and_one_picture(found):
    told = one_variable.report(found)
    (table,) = told.tables
    assert [row[0] for row in table.rows] == list(one_variable.RATES)
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert max(float(row[-1]) for row in table.rows) < 1e-13
    assert list(told.figures) == ["one_variable"]

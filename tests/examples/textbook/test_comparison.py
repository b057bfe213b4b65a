"""comparison: steps and good rates from known curves, opinions from known differences, and a small sweep."""

import jax
import numpy as np
import pytest

import gradtx
from examples.textbook import comparison, digits
from examples.textbook.comparison import Found, Runs
from tests.public import PUBLIC

RATES = np.array([1e-3, 1e-2, 1e-1, 1.0])
STEP = np.array([0, 10, 20])


@pytest.fixture(scope="module")
def found():
    return comparison.measure(quick=True)


def made(test_loss, speed=0.1, best=1):
    """An optimizer's runs of two seeds whose loss is lowest at one of `RATES`, and shrinks by `speed` in 10 steps."""
    worse = np.abs(np.arange(4) - best)[:, None]
    validation = 0.1 * 10.0**worse * np.array([1.0, 1.1])
    train = np.broadcast_to(2.0 * speed ** np.arange(3), (4, 2, 3))
    return Runs(train, validation, validation + np.array(test_loss), np.full((4, 2), 0.9))


def known(**runs):
    size = {"Lion": 4.0, "Adam": 8.0}
    return Found(STEP, dict.fromkeys(runs, RATES), runs, {name: size.get(name, 0.0) for name in runs})


def test_steps_until_a_loss_are_read_off_straight_lines_of_its_logarithm():
    assert comparison.steps_until(STEP, np.array([1.0, 0.01, 1.0]), 0.1) == pytest.approx(5)
    assert comparison.steps_until(STEP, np.array([1.0, 1.0, 0.1**4]), 0.1) == pytest.approx(12.5)
    assert comparison.steps_until(STEP, np.array([0.05, 1.0, 1.0]), 0.1) == 0
    assert comparison.steps_until(STEP, np.array([1.0, 0.1, np.nan]), 0.1) == np.inf
    assert comparison.steps_until(STEP, np.array([1.0, np.inf, 0.05]), 0.1) == 20


def test_good_decades_end_where_the_loss_passes_the_factor():
    loss = np.array([100.0, 1.0, 1.0, 10.0])
    width, is_open = comparison.good_decades(RATES, loss, within=10**0.5)
    assert width == pytest.approx(0.25 + 1 + 0.5)  # a quarter of two orders of loss, all of a decade, half of an order
    assert not is_open
    assert comparison.good_decades(RATES, np.array([np.inf, 1.0, np.inf, 1.0])) == (0, False)  # the region of the best
    assert comparison.good_decades(RATES, np.ones(4)) == (pytest.approx(3), True)


def test_the_best_rate_is_the_medians_and_a_diverged_run_is_the_worst():
    losses = np.array([[1.0, np.nan, np.nan], [2.0, 2.0, 3.0], [0.1, 2.5, 9.0]])
    runs = Runs(losses, losses, losses, losses)
    assert comparison.best_rate(runs) == 1
    chosen = comparison.at_best(Found(STEP, {"SGD": RATES}, {"SGD": runs}, {}))["SGD"]
    np.testing.assert_array_equal(chosen.test_loss, losses[1])
    np.testing.assert_array_equal(comparison.finite(losses[0]), [1, np.inf, np.inf])


def test_a_difference_is_judged_by_its_interval():
    for x, verdict in [
        ([1.0, 1.1, 0.9], "holds"),
        ([-1.0, -1.1, -0.9], "does not hold"),
        ([1.0, -1.0, 0.5], "within the noise"),
        ([1.0, np.nan, 1.0], "within the noise"),
    ]:
        assert comparison.judged("steps", np.array(x)).endswith(f": {verdict}")
    assert comparison.judged("steps", np.array([1.0, 1.1, 0.9])) == "steps, +1 ± 0.25: holds"


def test_opinions_are_judged_by_paired_differences():
    seeds = np.array([0.0, 5.0])  # their spread cancels
    everyone = known(
        SGD=made(seeds, speed=0.5),
        Adam=made(seeds + np.array([0.2, 0.21]), speed=0.01),
        AdamW=made(seeds + np.array([0.1, 0.11])),
        Lion=made(seeds + np.array([0.3, 0.31])),
    )
    sgd, adam, adamw, lion, default = comparison.claims(everyone)
    assert "their test loss less its, +0.205 ± 0.064: holds" in sgd
    assert "converges slowly: its steps less theirs at the best rates, +" in sgd and "does not hold" not in sgd
    assert "its test loss less that of SGD, +0.205 ± 0.064: holds" in adam
    assert "number 1 of 4, after none" in adam
    assert "test loss of Adam less its, +0.1 ± " in adamw and "holds; " in adamw
    assert "4.00 bytes of state per parameter, Adam 8.00: holds" in lion
    assert "test loss of Adam less its, -0.1 ± " in lion and "does not hold; " in lion
    assert default.endswith(
        "beyond the noise, than that of 0 of 3 others, each at its best rate, higher than that of 3."
    )


def test_a_run_that_never_converges_counts_all_its_steps():
    slow = known(SGD=made([0.0, 0.0], speed=0.9), Adam=made([0.0, 0.0], speed=0.01))
    assert np.isinf(comparison.steps_to(slow, "SGD")).all()
    assert (comparison.results(slow)["SGD"].steps == 20).all()


def test_a_default_is_measured_against_its_own_best_and_the_others():
    told = comparison.default(known(Adam=made([0.0, 0.0], best=1), SGD=made([9.0, 9.0])))
    assert "at 0.001 its median validation loss is 10.00 times that of its best rate, 0.01" in told
    assert "than that of 1 of 1 others, each at its best rate, higher than that of 0." in told


def test_every_optimizer_trains_over_a_vector_of_rates_and_states_its_bytes():
    expected = {"SGD": 0, "Adam": 8, "AdamW": 8, "LAMB": 8}
    for name, (make, _) in comparison.OPTIMIZERS.items():
        size = comparison.state_bytes(make(0.1))
        if name == "Adafactor":
            assert size < 4 * (2 * 64 + 64 + 10 + 64 + 138) / 8970 + 0.1  # rows and columns, whole biases
        else:
            assert size == pytest.approx(expected.get(name, 4), abs=0.01)  # and some counts, of 4 bytes each


def test_the_sweep_has_learnt_and_repeats_by_seed(found):
    assert [*found.runs] == ["SGD", "Adam"]
    for name, runs in found.runs.items():
        assert runs.validation_loss.shape == runs.test_accuracy.shape == (4, 2)
        assert runs.train_loss.shape == (4, 2, len(found.step))
        assert all(np.isfinite(x).all() for x in runs)
        best = comparison.best_rate(runs)
        assert 0 < best < 3
        assert (runs.test_accuracy[best] > 0.8).all(), name
        assert (runs.train_loss[best, :, -1] < runs.train_loss[best, :, 0] / 4).all()
    first = found.runs["SGD"].train_loss[..., 0]
    np.testing.assert_allclose(first, found.runs["Adam"].train_loss[..., 0], rtol=1e-5)  # one start, float32
    assert (np.ptp(first, axis=0) < 1e-5).all() and first[0, 0] != first[0, 1]


def test_a_member_of_the_sweep_is_a_run_of_the_digits_network(found):
    rate, steps = found.rates["SGD"][2], int(found.step[-1])
    run = jax.jit(lambda tx: digits.train(tx, 1, digits.load(), steps=steps, points=1))
    curves = run(gradtx.sgd(rate))
    runs = found.runs["SGD"]
    # Float32, and products of many members are summed in another order, over some steps.
    np.testing.assert_allclose(runs.validation_loss[2, 1], curves.validation_loss[-1], rtol=1e-3)
    np.testing.assert_allclose(runs.train_loss[2, 1, -1], curves.train_loss[-1], rtol=1e-3)


def test_the_report_has_a_row_for_each_optimizer_and_four_panels(found):
    told = comparison.report(found)
    table, printed = told.tables
    assert [row[0] for row in table.rows] == [row[0] for row in printed.rows] == [*found.runs]
    assert all(len(row) == len(table.columns) for row in table.rows)
    for (name, _, code), row in zip(printed.rows, table.rows, strict=True):
        built = eval(code.strip("`"), dict(PUBLIC))
        assert built == comparison.OPTIMIZERS[name][0](float(row[1]))
    assert list(told.figures) == ["comparison"]
    assert [axes.get_title() for axes in told.figures["comparison"].axes] == ["before Adam", "Adam and after", "", ""]
    assert told.findings[-1].endswith("for: none.")


def test_the_report_names_optimizers_whose_best_rate_lies_at_an_edge_and_marks_what_diverged():
    runs = made([0.0, 0.0], best=0)
    lost = runs.validation_loss.copy()
    lost[3] = np.nan
    told = comparison.report(known(SGD=runs._replace(validation_loss=lost), Adam=made([0.0, 0.0])))
    assert told.findings[-1].endswith("for: SGD.")
    assert told.tables[0].rows[0][-2].startswith("≥ ")
    crosses = [line for line in told.figures["comparison"].axes[0].lines if line.get_marker() == "x"]
    np.testing.assert_array_equal(crosses[0].get_xydata(), [[1.0, comparison.TOP]])

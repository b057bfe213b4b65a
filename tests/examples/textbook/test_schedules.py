"""schedules: the textbook's formulas, the choice of peaks, paired differences."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from examples.textbook import schedules
from examples.textbook.schedules import Runs

T = 120
ROUNDING = 2e-6  # float32


@pytest.fixture(scope="module")
def found():
    return schedules.measure(quick=True)


def curve(name):
    return np.asarray(schedules.schedules(T)[name](jnp.arange(T + 1)), np.float64)


def test_the_textbooks_formulas():
    t = np.arange(T + 1)
    np.testing.assert_allclose(curve("step"), 0.1 ** np.floor(t / (T // 3)), rtol=ROUNDING)
    np.testing.assert_allclose(curve("cosine"), 0.01 + 0.99 / 2 * (1 + np.cos(np.pi * t / T)), atol=ROUNDING)
    np.testing.assert_allclose(curve("warmup"), np.minimum(t / (T // 10), 1), rtol=ROUNDING)
    np.testing.assert_allclose(curve("exponential"), 0.01 ** (t / T), rtol=5 * ROUNDING)  # a power: log(0.01) = -4.6
    np.testing.assert_allclose(curve("polynomial"), (1 - t / T) ** 2, atol=ROUNDING)
    np.testing.assert_allclose(curve("inverse square root"), 1 / np.sqrt(1 + t / (T // 10)), rtol=ROUNDING)


def test_one_cycle_goes_from_the_base_to_the_peak_and_to_a_hundredth_of_the_base():
    rates = curve("one cycle, cosine")
    up = int(0.3 * T)
    np.testing.assert_allclose(rates[[0, up, T]], [1 / 25, 1, 1 / 2500], rtol=ROUNDING)
    t = np.arange(up + 1)
    np.testing.assert_allclose(rates[t], 1 / 25 + (1 - 1 / 25) / 2 * (1 - np.cos(np.pi * t / up)), rtol=5 * ROUNDING)


def test_every_schedule_of_gradtx_is_drawn_and_has_the_peak_1():
    public = {name for name in dir(gradtx) if name.endswith(("_schedule", "_decay", "_restarts", "_schedules"))}
    # builds a join_schedules; are transformations
    public -= {"sgdr_schedule", "scale_by_schedule", "layerwise_decay"}
    # are no rates; are later than the textbook: docs/recipes.md
    public -= {"ademamix_alpha_schedule", "ademamix_b3_schedule"}
    public -= {"warmup_stable_decay_schedule", "rex_schedule", "power_schedule"}
    drawn = schedules.schedules(T)
    assert {type(schedule).__name__ for schedule in drawn.values()} == public
    for name in drawn:
        assert curve(name).max() == pytest.approx(1, rel=ROUNDING), name
        assert curve(name).min() >= 0, name


def runs(validation, test):
    validation, test = np.array(validation), np.array(test)
    return Runs(test, validation, 1 - validation, test, 1 - test)


def test_the_peak_is_chosen_by_the_validation_loss_and_a_diverged_run_never_wins():
    some = runs(validation=[[[3.0, 3.0], [1.0, 2.0]], [[1.0, np.nan], [2.0, 2.0]]], test=[[[1.0, 2.0], [3.0, 4.0]]] * 2)
    best, ends = schedules.chosen(some)
    np.testing.assert_array_equal(best, [1, 1])
    np.testing.assert_array_equal(ends.test_loss, [[3.0, 4.0], [3.0, 4.0]])


def test_differences_are_paired_and_intervals_grow_with_their_number():
    base = np.array([1.0, 5.0, 9.0])
    mean, half = schedules.from_constant(np.stack([base, base + 2]))
    np.testing.assert_allclose([mean, half], [[2], [0]], atol=1e-12)  # the seeds' spread cancels
    noise = np.array([0.0, 1.0, 2.0])
    _, one = schedules.from_constant(np.stack([base, base + noise]))
    _, two = schedules.from_constant(np.stack([base, base + noise, base + noise]))
    assert one[0] == pytest.approx(4.302652729911275 / np.sqrt(3))  # t at 0.975 with 2 degrees
    assert two[0] == two[1] > one[0]


def test_runs_have_learnt_and_differ_by_schedule(found):
    (ends,) = found.runs.values()
    shape = (len(found.rates), len(found.peaks["momentum"]), 3)
    assert all(field.shape == shape for field in ends)
    assert (ends.test_accuracy[0] > 0.8).all()  # a constant rate
    assert len(np.unique(ends.train_loss)) > 0.95 * ends.train_loss.size


def test_report(found):
    told = schedules.report(found)
    (table,) = told.tables
    assert [row[0] for row in table.rows] == [*schedules.schedules(T)]
    assert all(row[1] in found.peaks["momentum"] for row in table.rows)
    assert [*told.figures] == ["schedules", "schedules_difference"]
    titles = [axes.get_title() for axes in told.figures["schedules"].axes]
    assert titles == [*found.rates]
    assert "against a constant rate" in told.findings[0]

"""regularizers: penalties that act, decays that agree and do not, choice by validation, paired differences."""

import numpy as np
import pytest

from examples.textbook import regularizers
from examples.textbook.digits import Curves
from examples.textbook.regularized import Augmentation, Penalty


@pytest.fixture(scope="module")
def found():
    return regularizers.measure(quick=True)


def test_l2_is_decoupled_decay_for_sgd_and_not_for_adam(found):
    assert found.decays["SGD"] < 1e-6  # float32, weights near 1, 50 steps
    assert found.decays["Adam"] > 0.1


def test_proximal_l1_makes_zeros_and_the_subgradient_none(found):
    assert found.zeros["proximal"] > 0.2
    assert found.zeros["subgradient"] == 0


def test_runs_learn_and_penalties_hold_the_training_loss_up(found):
    loss = {name: [curves.train_loss[:, -1] for curves in some] for name, some in found.curves.items()}
    (plain,) = loss["none"]
    assert (plain < 0.1).all()
    for name in ("L2 in the loss", "L1, proximal", "label smoothing"):
        assert len(loss[name]) == len(regularizers.SETTINGS[name])
        assert (loss[name][-1] > plain).all()
        means = [x.mean() for x in loss[name]]
        assert means == sorted(means)  # by strength


def curves(validation, test):
    validation, test = np.array(validation), np.array(test)
    steps = np.broadcast_to([10.0, 20.0, 30.0], validation.shape)
    return Curves(steps, test - 0.5, test, validation, test, test, 1 - test)


def test_ends_and_gap_are_read_at_the_points_asked_for():
    some = curves([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[0.3, 0.1, 0.2], [0.4, 0.5, 0.6]])
    np.testing.assert_allclose(regularizers.ends(some).test_loss, [0.2, 0.6])
    np.testing.assert_allclose(regularizers.ends(some, np.array([1, 0])).test_loss, [0.1, 0.4])
    np.testing.assert_allclose(regularizers.ends(some).gap, [0.5, 0.5])


def test_strengths_are_chosen_by_validation_and_early_stopping_is_read_from_the_plain_run():
    plain = curves([[3.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[0.3, 0.1, 0.2], [0.4, 0.5, 0.6]])
    worse = curves([[9.0, 9.0, 9.0]] * 2, [[0.0, 0.0, 0.0]] * 2)
    some = regularizers.Found({"none": [plain], "L2 in the loss": [worse, plain, worse]}, {}, {})
    best = regularizers.chosen(some)
    assert best["L2 in the loss"][0] == "0.01"
    strength, stopped = best["early stopping"]
    assert strength == "15 steps"
    np.testing.assert_allclose(stopped.test_loss, [0.1, 0.4])


def test_every_setting_has_one_strength_and_none_has_none():
    for name, some in regularizers.SETTINGS.items():
        for setting in some:
            if isinstance(setting, Penalty | Augmentation):
                assert sum(strength > 0 for strength in setting) == (name != "none")
            else:
                assert setting in regularizers.LAYERS
    assert set(regularizers.QUICK) <= {*regularizers.SETTINGS}


def test_report(found):
    told = regularizers.report(found)
    table, along = told.tables
    assert [row[0] for row in table.rows] == [*regularizers.QUICK, "early stopping"]
    assert [len(row) for row in table.rows] == [len(table.columns)] * 5
    assert table.rows[0][-3:] == ["", "", ""]
    assert all(np.isfinite(row[5]) for row in table.rows)
    assert len(along.rows) == 4
    assert [*told.figures] == ["regularizers"]
    assert not any("nan" in sentence for sentence in told.findings)

"""normalization: the formulas against torch and by hand, Flax against the formulas, dropout's average."""

import numpy as np
import pytest

from examples.textbook import normalization

X = np.random.default_rng(1).normal(2, 3, size=(32, 8))
GAMMA, BETA = np.random.default_rng(2).normal(size=(2, 8))


@pytest.fixture(scope="module")
def found():
    return normalization.measure(quick=True)


def test_batch_norm_gives_each_feature_beta_and_gamma_as_mean_and_deviation():
    y = normalization.batch_norm(X, GAMMA, BETA, eps=0)
    np.testing.assert_allclose(y.mean(axis=0), BETA, atol=1e-14)  # float64, 32 terms
    np.testing.assert_allclose(y.std(axis=0), abs(GAMMA), rtol=1e-13)


def test_layer_norm_gives_each_example_mean_0_and_deviation_1():
    y = normalization.layer_norm(X, 1, 0, eps=0)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=1e-14)
    np.testing.assert_allclose(y.std(axis=1), 1, rtol=1e-13)


def test_rms_norm_gives_each_example_rms_1_and_keeps_directions():
    y = normalization.rms_norm(X, 1, eps=0)
    np.testing.assert_allclose(np.sqrt(np.mean(y**2, axis=1)), 1, rtol=1e-14)
    np.testing.assert_allclose(y * X[:, :1], X * y[:, :1], rtol=1e-13)


def test_formulas_are_torchs():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x, gamma, beta = map(torch.from_numpy, (X, GAMMA, BETA))
    pairs = [
        (
            normalization.batch_norm(X, GAMMA, BETA, 0.1),
            functional.batch_norm(x, None, None, gamma, beta, True, eps=0.1),
        ),
        (normalization.layer_norm(X, GAMMA, BETA, 0.1), functional.layer_norm(x, (8,), gamma, beta, eps=0.1)),
        (normalization.rms_norm(X, GAMMA, 0.1), functional.rms_norm(x, (8,), gamma, eps=0.1)),
    ]
    for ours, theirs in pairs:
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-12, atol=1e-12)  # float64 in another order


def test_running_averages_weigh_batches_by_powers_of_the_momentum():
    average = np.zeros(8), np.zeros(8)
    for _ in range(3):
        average = normalization.running(average, X, 0.5)
    np.testing.assert_allclose(average, [7 / 8 * X.mean(axis=0), 7 / 8 * X.var(axis=0)], rtol=1e-14)


def test_flax_follows_the_formulas(found):
    assert len(found.differences) == 8
    for name, _, gap, size in found.differences:
        assert size > 1, name  # there is something to be different
        assert gap < 2e-6 * size, name  # float32, sums of up to 256 terms


def test_normalized_activations_have_the_moments_that_the_names_say(found):
    assert abs(found.before.mean()) > 2
    assert found.before.std() > 3
    for name in ("batch norm", "layer norm"):
        assert found.after[name].mean() == pytest.approx(0, abs=1e-12)
        assert found.after[name].std() == pytest.approx(1, abs=1e-4)  # eps beside variances of about 10
    assert np.sqrt(np.mean(found.after["RMS norm"] ** 2)) == pytest.approx(1, abs=1e-4)


def test_dropout_is_inverted_dropout_with_scaled_weights(found):
    assert found.scaled < 1e-14  # float64


def test_dropout_averages_out_unless_a_nonlinearity_follows(found):
    linear, hidden, bent = (normalization.slope(found.masks, found.error[:, i]) for i in range(3))
    for exponent, _ in (linear, hidden):
        assert exponent == pytest.approx(-0.5, abs=0.06)  # three seeds, five sizes
    assert bent[0] > -0.4
    assert found.error[:, 2, -1].min() > 2 * found.error[:, 0, -1].max()


def test_slope_recovers_an_exponent():
    masks = np.array([1, 10, 100])
    error = np.stack([c * masks**-0.75 for c in (1.0, 2.0, 3.0)])
    exponent, half = normalization.slope(masks, error)
    assert exponent == pytest.approx(-0.75)
    assert half == pytest.approx(0, abs=1e-12)  # the seeds agree


def test_report(found):
    told = normalization.report(found)
    layers, dropout = told.tables
    assert [len(layers.rows), len(dropout.rows)] == [8, 3]
    assert [row[0] for row in dropout.rows] == [*normalization.CASES]
    assert [*told.figures] == ["normalization"]
    assert len(told.findings) == 4
    assert not any("nan" in sentence or "inf " in sentence for sentence in told.findings)

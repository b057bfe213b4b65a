"""clipping: the recurrence, what the chain does to a step, and that the monitor's numbers say it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx
from examples.textbook import clipping

ROUNDING = 1e-5  # float32 norms of some thousand numbers


@pytest.fixture(scope="module")
def found():
    return clipping.measure(quick=True)


def test_the_network_is_its_recurrence():
    network = clipping.Recurrent(nnx.Rngs(0), units=4)
    x = jax.random.normal(jax.random.key(1), (3, 6))
    w, v, b = (
        np.asarray(array[...], np.float64)
        for array in (network.cell.dense_h.kernel, network.cell.dense_i.kernel, network.cell.dense_i.bias)
    )
    np.testing.assert_array_equal(w, np.eye(4))
    h = np.zeros((3, 4))
    for column in np.asarray(x, np.float64).T:
        h = np.maximum(h @ w + column[:, None] @ v + b, 0)
    expected = h @ np.asarray(network.last.kernel[...], np.float64)  # biases start at 0
    np.testing.assert_allclose(network(x), expected, rtol=1e-5, atol=1e-6)  # float32
    assert network(x).shape == (3, 10)


def test_a_step_is_clipped_accelerated_and_skipped_where_it_is_not_finite():
    tx = clipping.transformation(0.5)
    params = jnp.zeros(2)
    state = tx.init(params)
    steep = jnp.array([30.0, 40.0])
    rate = lambda t: clipping.RATE * (1 + np.cos(np.pi * t / 400)) / 2
    updates, state = tx.update(steep, state, params)
    np.testing.assert_allclose(updates, [-0.3 * rate(0), -0.4 * rate(0)], rtol=1e-6)  # float32
    updates, state = tx.update(steep, state, params)
    np.testing.assert_allclose(updates, 1.9 * rate(1) * np.array([-0.3, -0.4]), rtol=1e-6)
    updates, state = tx.update(jnp.array([jnp.nan, 1.0]), state, params)
    np.testing.assert_array_equal(updates, [0, 0])
    seen = gradtx.metrics(state)
    assert seen["skipped_steps"] == 1
    assert seen["clipped_fraction"] >= 2 / 3


def test_one_seed_starts_alike_under_every_bound_and_seeds_differ(found):
    for name in ("loss", "gradient_norm"):
        first = found.seen[name][..., 0]
        np.testing.assert_array_equal(first, first[:1].repeat(len(clipping.BOUNDS), 0))
        assert first[0, 0] != first[0, 1]


def test_the_first_step_is_as_long_as_rate_and_bound_allow(found):
    bounds = np.array([*clipping.BOUNDS.values()])[:, None]
    expected = clipping.RATE * np.minimum(found.seen["gradient_norm"][..., 0], bounds)
    np.testing.assert_allclose(found.seen["update_norm"][..., 0], expected, rtol=ROUNDING)
    assert (found.seen["gradient_norm"][..., 0] > 10).all()  # gradients do explode


def test_no_step_is_longer_than_momentum_can_make_clipped_ones(found):
    steps = np.arange(1, found.seen["loss"].shape[-1] + 1)
    for bound, norms in zip(clipping.BOUNDS.values(), found.seen["update_norm"], strict=True):
        assert (norms <= clipping.RATE * bound * (1 - 0.9**steps) / (1 - 0.9) * (1 + ROUNDING)).all()


def test_the_monitor_counts_and_follows_the_schedule(found):
    seen, steps = found.seen, np.arange(found.seen["loss"].shape[-1])
    rates = clipping.RATE * (1 + np.cos(np.pi * steps / 400)) / 2
    clipped = seen["skipped_steps"][:-1] == 0  # for a bound, as long as all was finite
    assert clipped.all()
    np.testing.assert_allclose(seen["learning_rate"][:-1], np.broadcast_to(rates, clipped.shape), rtol=1e-6)  # float32
    above = seen["gradient_norm"][:-1] > np.array([*clipping.BOUNDS.values()])[:-1, None, None]
    np.testing.assert_allclose(seen["clipped_fraction"][:-1], above.cumsum(axis=-1) / (steps + 1), rtol=1e-6)


def test_without_a_clip_steps_are_skipped_and_the_loss_explodes(found):
    assert (found.seen["skipped_steps"][-1, :, -1] > 0).all()
    loss = found.seen["loss"]
    assert not (loss[-1] < 1e6).all()
    assert np.isfinite(loss[0]).all() and (loss[0, :, -1] < loss[0, :, 0]).all()


def test_a_layers_ratio_is_that_of_update_to_weight(found):
    first = found.seen["update_ratio/cell/dense_h/kernel"][..., 0]
    assert (first <= found.seen["update_norm"][..., 0] / np.sqrt(32) * (1 + ROUNDING)).all()  # |identity| = sqrt(32)
    assert (first > 0).all()


def test_the_report_has_a_row_for_each_bound_and_one_picture(found):
    told = clipping.report(found)
    table, read = told.tables
    assert [row[0] for row in table.rows] == list(clipping.BOUNDS)
    assert {"`learning_rate`", "`clipped_fraction`", "`update_ratio/last/kernel`"} < {row[0] for row in read.rows}
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert all(np.isfinite(float(cell.split()[0].rstrip("%"))) for row in table.rows[:-1] for cell in row[1:])
    assert list(told.figures) == ["clipping"]
    titles = [axes.get_title() for axes in told.figures["clipping"].axes]
    assert len(titles) == 6 and all(titles)
    late = np.median(found.seen["loss"][:-1, :, -1:].mean(axis=-1), axis=1)
    assert told.findings[0].startswith(f"Best: bound {[*clipping.BOUNDS][int(late.argmin())]}, loss {late.min():.3g}")

import jax
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from examples.textbook import batches, digits


@pytest.fixture(scope="module")
def found():
    return batches.measure(quick=True)


def test_a_batchs_variance_is_the_formulas(found):
    sizes, n = np.array(batches.SIZES[:8]), found.instances
    assert n == sizes[-1] == 128
    formulas = np.array([1 / sizes, (n - sizes) / (n - 1) / sizes])
    mean = found.variance.mean(axis=-1)
    error = found.variance.std(axis=-1, ddof=1) / np.sqrt(found.variance.shape[-1])
    assert np.all(np.abs(mean - formulas) <= 4 * error + 1e-12)  # 4 standard errors: 15 comparisons
    np.testing.assert_allclose(found.variance[1, -1], 0, atol=1e-12)  # all instances: the full gradient


@pytest.mark.parametrize("order", batches.ORDERS)
def test_a_plan_shows_every_instance_once_per_epoch(order):
    labels = np.random.default_rng(0).integers(0, 10, 40)
    plan = batches.plans(np.array([4, 5]), labels, batch=20, epochs=20, order=order)
    assert plan.shape == (2, batches.POINTS, 1, 20)
    epochs = plan.reshape(2, 20, 40)
    np.testing.assert_array_equal(np.sort(epochs, axis=-1), np.broadcast_to(np.arange(40), epochs.shape))
    repeats = np.all(epochs[:, 1] == epochs[:, 0])
    assert repeats == (order != "shuffled every epoch")
    assert np.all(np.diff(labels[epochs[0, 0]]) >= 0) == (order == "ordered by class")
    assert np.all(epochs[0] == epochs[1]) == (order == "ordered by class")


def test_updates_are_gradient_descent_on_the_planned_rows(found):
    data, seeds = digits.load(found.pictures), np.arange(18)  # shapes for which the program is compiled
    plan = batches.plans(seeds, np.asarray(data.train.y), 20, found.epochs, "shuffled once")
    weights = batches.first_weights(seeds)
    rate = np.full(18, 0.01, np.float32)  # small, so that roundings do not grow
    loss, _, last = batches.PROGRAM(rate, np.full(18, 1 / 20, np.float32), weights, plan, data)
    mean = lambda w, x, y: digits.cross_entropy(nnx.merge(batches.GRAPH, w), x, y)
    gradient, one = jax.jit(jax.grad(mean)), jax.tree.map(lambda p: p[2], weights)
    for rows in plan[2, :, 0]:
        one = jax.tree.map(lambda p, g: p - 0.01 * g, one, gradient(one, data.train.x[rows], data.train.y[rows]))
    np.testing.assert_allclose(last[2], ravel_pytree(one)[0], rtol=1e-4, atol=1e-5)  # float32, 40 updates
    np.testing.assert_allclose(loss[2, -1], mean(one, *data.train), rtol=1e-4)


def test_the_sum_with_a_smaller_rate_is_the_mean_and_with_the_same_is_not(found):
    mean = found.orders["shuffled every epoch"].run
    right, wrong = found.sums
    # float32 rounds the factor 20 elsewhere, and 40 updates of a rate near the stable one amplify it
    np.testing.assert_allclose(right.weights, mean.weights, atol=1e-4)
    assert np.all(~(wrong.loss[:, -1] <= mean.loss[:, -1]))
    assert np.abs(wrong.weights - mean.weights).max() > 1


def test_work_is_counted_in_gradients_of_an_instance(found):
    n, epochs = found.pictures, found.epochs
    ends = {name: [x[-1] for x in batches.costs(found, name)] for name in batches.WAYS}
    assert ends == {
        "all data": [20 * epochs, 20 * epochs * n],
        "single instances": [epochs * n, epochs * n],
        "batches of 20": [epochs * n // 20, epochs * n],
    }
    for name in batches.WAYS:
        gradients = batches.costs(found, name)[1]
        i = batches.reach(gradients, found)
        assert gradients[i] <= epochs * n and (i == len(gradients) - 1 or gradients[i + 1] > epochs * n)


def test_for_the_same_work_many_updates_get_farther(found):
    losses = {
        name: of.run.loss[:, batches.reach(batches.costs(found, name)[1], found)] for name, of in found.ways.items()
    }
    assert np.all(losses["batches of 20"] < losses["all data"])


def test_ordered_data_learn_worse_with_the_same_rate(found):
    assert np.all(found.same_rate.loss[:, -1] > found.orders["shuffled every epoch"].run.loss[:, -1])


def test_a_bootstrapped_interval_holds_the_mean():
    assert batches.loss_of(np.full(9, 2.5)) == "2.5 (2.5 to 2.5)"
    mean, low, _, high = batches.loss_of(np.array([0.0, 0.0, 0.0, 40.0])).replace("(", "").replace(")", "").split()
    assert float(low) == 0 < float(mean) == 10 < float(high)


def test_the_report_has_its_tables_and_picture(found):
    told = batches.report(found)
    assert [len(table.rows) for table in told.tables] == [8, 3, 4, 3]
    assert all(len(row) == len(table.columns) for table in told.tables for row in table.rows)
    assert list(told.figures) == ["batches"]
    assert len(told.findings) == 6

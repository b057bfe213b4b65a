"""digits: three parts of scikit-learn's pictures, and runs that do not depend on how they are cut into stretches."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from sklearn.datasets import load_digits

import gradtx
from examples.textbook import digits

TX = gradtx.adam(0.01)
SMALL = functools.partial(digits.Perceptron, widths=(8,))


class Noisy(nnx.Module):
    """A layer with batch statistics and dropout."""

    def __init__(self, rngs):
        self.norm, self.drop = nnx.BatchNorm(64, momentum=0.9, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)
        self.last = nnx.Linear(64, digits.CLASSES, rngs=rngs)

    def __call__(self, x):
        return self.last(self.drop(self.norm(x)))


@pytest.fixture(scope="module")
def data():
    return digits.load()


@functools.partial(jax.jit, static_argnames=("steps", "network"))
def advance(training, data, steps, network=SMALL):
    return digits.advance(TX, training, data, steps, network=network, batch=16)


def same(one, other):
    """Equal but for float32 rounding: scans of another length are other programs."""
    key = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    jax.tree.map(lambda a, b: np.testing.assert_allclose(key(a), key(b), rtol=1e-5, atol=1e-7), one, other)


def softmax_loss(logits, y):
    logits = np.asarray(logits, np.float64)
    return np.mean(np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y])


def test_the_parts_share_no_picture_and_together_are_scikit_learns(data):
    pixels, labels = load_digits(return_X_y=True)
    assert [len(part.y) for part in data] == [1077, 360, 360]
    assert {part.x.dtype for part in data} == {jnp.dtype("float32")}
    assert {part.y.dtype for part in data} == {jnp.dtype("int32")}
    x = np.concatenate([part.x for part in data])
    shades = 16 * (x - x.min()) / (x.max() - x.min())  # 0 to 16 again
    np.testing.assert_allclose(shades, shades.round(), atol=1e-4)  # float32 of numbers up to 16
    ours = np.column_stack([shades.round(), np.concatenate([part.y for part in data])])
    given = np.column_stack([pixels, labels])
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], given[np.lexsort(given.T)])


def test_every_class_has_its_share_of_every_part(data):
    whole = np.bincount(load_digits(return_X_y=True)[1])
    for part, share in zip(data, (0.6, 0.2, 0.2), strict=True):
        # Two splits, each of which rounds a class's share to a whole picture.
        np.testing.assert_allclose(np.bincount(part.y), share * whole, rtol=0, atol=2)


def test_the_training_pixels_have_mean_0_and_variance_1(data):
    x = np.asarray(data.train.x, np.float64)
    assert abs(x.mean()) < 1e-6  # float32 rounds each of many pixels
    assert abs(x.var() - 1) < 1e-5


def test_fewer_training_pictures_are_the_first_of_all(data):
    few = digits.load(train=100)
    jax.tree.map(np.testing.assert_array_equal, few.train, digits.Part(data.train.x[:100], data.train.y[:100]))
    jax.tree.map(np.testing.assert_array_equal, few[1:], data[1:])
    assert len(np.unique(few.train.y)) == 10  # shuffled


def test_cross_entropy():
    rng = np.random.default_rng(0)
    logits, y = 5 * rng.normal(size=(20, 10)), rng.integers(0, 10, 20)
    ours = digits.cross_entropy(lambda x: x, jnp.asarray(logits, jnp.float32), jnp.asarray(y))
    np.testing.assert_allclose(ours, softmax_loss(logits, y), rtol=1e-6)  # float32
    far = digits.cross_entropy(lambda x: x, jnp.array([[1e4, 0.0]]), jnp.array([1]))
    assert far == 1e4  # no overflow


def test_the_perceptron(data):
    model = digits.Perceptron(nnx.Rngs(0))
    assert sum(x.size for x in jax.tree.leaves(nnx.state(model, nnx.Param))) == 2 * (64 * 64 + 64) + 64 * 10 + 10
    x = data.test.x[:5]
    expected = np.asarray(x, np.float64)
    for layer in model.hidden:
        expected = np.maximum(expected @ np.asarray(layer.kernel[...], np.float64) + layer.bias[...], 0)
    expected = expected @ np.asarray(model.last.kernel[...], np.float64) + model.last.bias[...]
    np.testing.assert_allclose(model(x), expected, rtol=1e-4, atol=1e-5)  # float32, three sums of 64 terms


def test_a_seed_repeats_another_differs_and_the_optimizer_is_no_part_of_it():
    one, again, other = (digits.begin(TX, seed, SMALL) for seed in (3, 3, 4))
    same(one, again)
    assert not np.array_equal(one.params["last"]["kernel"][...], other.params["last"]["kernel"][...])
    assert not np.array_equal(jax.random.key_data(one.key), jax.random.key_data(other.key))
    same(one.params, digits.begin(gradtx.sgd(0.1), 3, SMALL).params)


def test_2_and_3_steps_are_5_steps(data):
    start = digits.begin(TX, 0, SMALL)
    whole = advance(start, data, 5)
    same(advance(advance(start, data, 2), data, 3), whole)
    assert whole.step == whole.state["count"] == 5
    moved = np.abs(whole.params["last"]["kernel"][...] - start.params["last"]["kernel"][...])
    assert 0 < moved.max() < 5 * 0.01 * 1.1  # Adam's steps are about its rate


def test_a_batch_has_its_size_its_labels_and_a_key_of_its_own(data):
    seen = []

    def objective(model, x, y, key):
        seen.append((x.shape, y.shape, key.dtype))
        assert not model.drop.deterministic and not model.norm.use_running_average  # in training mode
        return digits.cross_entropy(model, x, y) * jax.random.uniform(key)

    start = digits.begin(TX, 0, Noisy)
    jax.eval_shape(
        lambda start, data: digits.advance(TX, start, data, 2, network=Noisy, objective=objective, batch=7), start, data
    )
    assert seen[0] == ((7, 64), (7,), start.key.dtype)


def test_a_runs_last_point_is_the_network_after_all_its_steps(data):
    run = functools.partial(digits.train, network=SMALL, steps=5, points=1, batch=16)
    curves = jax.jit(run)(TX, 0, data)
    end = advance(digits.begin(TX, 0, SMALL), data, 5)
    measured = [number for part in data for number in digits.evaluate(end, part, SMALL)]
    same([curve[-1] for curve in curves[1:]], measured)
    assert curves.step.tolist() == [5]
    model = nnx.merge(nnx.graphdef(SMALL(nnx.Rngs(0))), end.params, end.rest)
    logits = model(data.test.x)
    np.testing.assert_allclose(curves.test_loss[-1], softmax_loss(logits, data.test.y), rtol=1e-5)  # float32
    assert float(curves.test_accuracy[-1]) == np.float32(np.mean(np.argmax(logits, axis=1) == data.test.y))


def test_points_are_equally_spaced_over_the_steps(data):
    run = functools.partial(digits.train, network=SMALL, steps=6, points=3, batch=4)
    curves = jax.jit(run)(TX, 0, data)
    assert curves.step.tolist() == [2, 4, 6]
    assert all(curve.shape == (3,) for curve in curves)


def test_batch_statistics_and_random_streams_are_carried_and_not_used_up_when_measured(data):
    start = digits.begin(TX, 0, Noisy)
    one, two = (advance(start, data, steps, Noisy) for steps in (1, 2))
    for before, after in ((start, one), (one, two)):
        for slot in (("norm", "mean"), ("norm", "var"), ("drop", "rngs", "count")):
            old, new = (functools.reduce(lambda tree, key: tree[key], slot, at.rest) for at in (before, after))
            assert not np.array_equal(old[...], new[...]), slot
    first, second = (digits.evaluate(two, data.validation, Noisy) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    norm, last = (SimpleNamespace(**two.params[name]) for name in ("norm", "last"))
    mean, var = (np.asarray(two.rest["norm"][name][...], np.float64) for name in ("mean", "var"))
    x = (np.asarray(data.validation.x) - mean) / np.sqrt(var + 1e-5) * norm.scale[...] + norm.bias[...]
    logits = x @ last.kernel[...] + last.bias[...]
    np.testing.assert_allclose(first[0], softmax_loss(logits, data.validation.y), rtol=1e-4)  # float32, var near 0

"""regularized: smooth labels, varied pictures, layers in between, and runs that trace with each."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from examples.textbook import digits, regularized
from examples.textbook.regularized import LAYERS, Augmentation, Penalty
from examples.train_resnet.augment import Batch

KEY = jax.random.key(5)
PICTURES = jnp.asarray(np.random.default_rng(0).uniform(0.5, 1.5, size=(12, 8, 8, 1)), jnp.float32)
BATCH = Batch(PICTURES, jax.nn.one_hot(jnp.arange(12) % 10, 10))
VARY = jax.jit(regularized.vary)


def test_smooth_labels():
    smooth = regularized.smooth(jax.nn.one_hot(jnp.array([2]), 4), 0.2)
    np.testing.assert_allclose(smooth, [[0.05, 0.05, 0.85, 0.05]], rtol=1e-6)  # float32


def test_soft_cross_entropy_is_cross_entropy_for_sure_labels_and_log_n_for_even_logits():
    logits, y = jax.random.normal(KEY, (5, 10)), jnp.arange(5)
    soft = regularized.soft_cross_entropy(logits, jax.nn.one_hot(y, 10))
    np.testing.assert_allclose(soft, digits.cross_entropy(lambda x: x, logits, y), rtol=1e-6)  # float32
    labels = regularized.smooth(jax.nn.one_hot(y, 10), 0.3)
    np.testing.assert_allclose(regularized.soft_cross_entropy(jnp.zeros((5, 10)), labels), np.log(10), rtol=1e-6)


def vary(**strengths):
    how = jax.tree.map(float, Augmentation(**strengths))
    return jax.tree.map(np.asarray, VARY(how, KEY, BATCH))


def test_strengths_of_0_change_nothing():
    for ours, given in zip(vary(), BATCH, strict=True):
        np.testing.assert_array_equal(ours, given)


def test_flips_mirror_some_pictures():
    images = vary(flip=1).images
    mirrored = [bool((new == old[:, ::-1]).all()) for new, old in zip(images, np.asarray(PICTURES), strict=True)]
    same = [bool((new == old).all()) for new, old in zip(images, np.asarray(PICTURES), strict=True)]
    assert [a != b for a, b in zip(mirrored, same, strict=True)] == [True] * 12
    assert 0 < sum(mirrored) < 12


def test_shifts_bring_in_black_from_the_border_only():
    images = vary(shift=1).images
    inner = images[:, 1:-1, 1:-1]
    assert (inner > 0).all()  # by at most one pixel
    assert (images == 0).any()


def test_jitter_is_one_line_of_brightness_for_each_picture():
    images = vary(jitter=0.3).images
    for new, old in zip(images, np.asarray(PICTURES), strict=True):
        slope, offset = np.polyfit(old.ravel(), new.ravel(), 1)
        np.testing.assert_allclose(new, slope * old + offset, atol=1e-5)  # float32, a fit to 64 pixels
        assert 0.7 <= slope <= 1.3
        assert abs(new.mean() - old.mean()) <= 0.3 + 1e-6


def test_rotation_keeps_the_middle_and_goes_as_far_as_its_angle():
    images = vary(rotation=0.15).images
    middle = (slice(None), slice(3, 5), slice(3, 5))
    # The inner four pixels lie 0.7 from the centre and move by less than 0.11 of a pixel, among values 1 apart at most.
    np.testing.assert_allclose(images[middle], np.asarray(PICTURES)[middle], atol=0.25)
    assert not np.allclose(images, PICTURES, atol=0.05)


def test_mixup_blends_pictures_and_labels_alike():
    images, labels = vary(mixup=1)
    np.testing.assert_allclose(labels.sum(axis=1), 1, rtol=1e-6)  # float32
    share = labels.max(axis=1).min()
    assert 0.5 <= share < 1
    assert images.min() >= 0.5 and images.max() <= 1.5  # between two pictures
    assert not np.allclose(images, PICTURES)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_in_between_leaves_the_first_weights(name):
    network = regularized.Layered(nnx.Rngs(3), LAYERS[name])
    plain = digits.Perceptron(nnx.Rngs(3))
    np.testing.assert_array_equal(network.plain.hidden[1].kernel[...], plain.hidden[1].kernel[...])
    assert len(network.between) == 2


def test_dropout_in_between_zeros_what_it_should_and_nothing_at_test_time():
    network = regularized.Layered(nnx.Rngs(3), LAYERS["dropout 0.5"])
    x = jax.random.normal(KEY, (4, 64))
    network.eval()
    np.testing.assert_allclose(network(x), digits.Perceptron(nnx.Rngs(3))(x), rtol=1e-5, atol=1e-6)  # float32
    network.train()
    assert not np.allclose(network(x), network(x))


@pytest.mark.parametrize(
    "run",
    [
        functools.partial(regularized.augmented, Augmentation(0.1, 1.0, 0.1, 1.0, 0.5)),
        *(functools.partial(regularized.layered, layer) for layer in LAYERS.values()),
        functools.partial(regularized.penalized, Penalty(0.1, 0.1, 0.1, 0.1, 0.1, 0.1)),
    ],
)
def test_every_run_traces(run):
    data = digits.load(train=64)
    curves = jax.eval_shape(lambda seed: run(seed, data, steps=4, points=2), 0)
    assert all(curve.shape == (2,) for curve in curves)

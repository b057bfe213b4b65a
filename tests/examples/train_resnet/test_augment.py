import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.train_resnet.augment import Augmentation, Batch, augment, flip, mixup, normalize, shift

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(1, 256, size=(16, 6, 6, 3), dtype=np.uint8)  # no black pixel: black is padding
LABELS = np.arange(16, dtype=np.int32) % 4
KEY = jax.random.key(3)


def test_a_shifted_picture_is_a_crop_of_the_padded_one():
    shifted = np.asarray(shift(KEY, jnp.asarray(IMAGES), padding=2))
    assert (shifted.shape, shifted.dtype) == (IMAGES.shape, IMAGES.dtype)
    padded = np.pad(IMAGES, [(0, 0), (2, 2), (2, 2), (0, 0)])
    offsets = set()
    for old, new in zip(padded, shifted, strict=True):
        places = [(i, j) for i in range(5) for j in range(5) if (old[i : i + 6, j : j + 6] == new).all()]
        assert len(places) == 1
        offsets.add(places[0])
    assert len(offsets) > 5  # each picture is shifted on its own


def test_a_flip_mirrors_about_half_of_the_pictures():
    flipped = np.asarray(flip(KEY, jnp.asarray(IMAGES)))
    mirrored = [(new == old[:, ::-1]).all() for old, new in zip(IMAGES, flipped, strict=True)]
    same = [(new == old).all() for old, new in zip(IMAGES, flipped, strict=True)]
    assert [a != b for a, b in zip(mirrored, same, strict=True)] == [True] * 16
    assert 3 <= sum(mirrored) <= 13


def test_normalized_pictures_have_mean_zero_and_deviation_one():
    mean, std = (f(IMAGES, axis=(0, 1, 2)).astype(np.float32) for f in (np.mean, np.std))
    x = np.asarray(normalize(IMAGES, mean, std))
    np.testing.assert_allclose(x.mean(axis=(0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std(axis=(0, 1, 2)), 1, atol=1e-6)


def test_mixup_blends_pairs_and_their_labels_alike():
    # Picture i is i everywhere, so that a blend tells its parts.
    images = jnp.broadcast_to(jnp.arange(16.0)[:, None, None, None], (16, 2, 2, 1))
    mixed = mixup(KEY, Batch(images, jnp.eye(16)), alpha=1.0)
    assert mixed.images.shape == images.shape
    np.testing.assert_allclose(mixed.labels.sum(axis=1), 1, rtol=1e-6)
    assert mixed.labels.min() >= 0
    np.testing.assert_allclose(mixed.labels @ jnp.arange(16.0), mixed.images[:, 0, 0, 0], rtol=1e-5)
    assert ((mixed.labels > 0).sum(axis=1) == 2).any()


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_augmented_batches_keep_shape_and_labels_stay_probabilities(alpha):
    zeros, ones = np.zeros(3, np.float32), np.ones(3, np.float32)
    augmentation = Augmentation(padding=1, flip=True, mixup=alpha)
    batch = augment(KEY, IMAGES, LABELS, zeros, ones, classes=4, augmentation=augmentation)
    assert (batch.images.shape, batch.images.dtype) == (IMAGES.shape, jnp.float32)
    assert (batch.labels.shape, batch.labels.dtype) == ((16, 4), jnp.float32)
    np.testing.assert_allclose(batch.labels.sum(axis=1), 1, rtol=1e-6)
    assert batch.images.min() >= 0 and batch.images.max() <= 255.001
    again = augment(KEY, IMAGES, LABELS, zeros, ones, classes=4, augmentation=augmentation)
    other = augment(jax.random.key(4), IMAGES, LABELS, zeros, ones, classes=4, augmentation=augmentation)
    np.testing.assert_array_equal(batch.images, again.images)
    assert (np.asarray(batch.images) != np.asarray(other.images)).any()


def test_without_augmentation_pictures_are_only_normalized():
    mean, std = np.full(3, 100, np.float32), np.full(3, 50, np.float32)
    batch = augment(KEY, IMAGES, LABELS, mean, std, classes=4, augmentation=Augmentation(padding=0, flip=False))
    np.testing.assert_allclose(batch.images, (IMAGES.astype(np.float32) - 100) / 50, rtol=1e-6)
    np.testing.assert_array_equal(batch.labels, np.eye(4)[LABELS])

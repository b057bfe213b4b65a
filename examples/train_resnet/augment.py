"""What happens to a batch of pictures before the network sees it: random crop and flip, normalization, mixup."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
from jax import Array


class Batch(NamedTuple):
    """What one training step learns from.

    Attributes:
      images: float32, `[batch, height, width, channels]`, normalized.
      labels: float32, `[batch, classes]`: each row a probability of each class, summing to 1.
    """

    images: Array
    labels: Array


@dataclass(frozen=True)
class Augmentation:
    """How training pictures are varied.

    Attributes:
      padding: pixels of black added to each side before a random crop to the old size; 0: no crop.
      flip: mirror each picture left to right with probability 1/2.
      mixup: alpha of mixup's Beta(alpha, alpha) distribution; 0: no mixup.
    """

    padding: int
    flip: bool
    mixup: float = 0.0


@functools.partial(jax.jit, static_argnames=("classes", "augmentation"))
def augment(
    key: Array, images: Array, labels: Array, mean: Array, std: Array, *, classes: int, augmentation: Augmentation
) -> Batch:
    """A batch to train on: uint8 pictures, varied at random, then normalized, then mixed.

    Args:
      key: random key.
      images: uint8, `[batch, height, width, channels]`.
      labels: integers, `[batch]`.
      mean: of each channel.
      std: of each channel.
      classes: number of classes.
      augmentation: what to do.
    """
    crop_key, flip_key, mixup_key = jax.random.split(key, 3)
    if augmentation.padding:
        images = shift(crop_key, images, augmentation.padding)
    if augmentation.flip:
        images = flip(flip_key, images)
    batch = Batch(normalize(images, mean, std), jax.nn.one_hot(labels, classes))
    return mixup(mixup_key, batch, augmentation.mixup) if augmentation.mixup else batch


def shift(key: Array, images: Array, padding: int) -> Array:
    """Pads every picture with `padding` black pixels on each side and crops it to its old size at a random place."""
    _, height, width, _ = images.shape
    padded = pix.pad_to_size(images, height + 2 * padding, width + 2 * padding)
    crop = functools.partial(pix.random_crop, crop_sizes=images.shape[1:])
    return jnp.asarray(jax.vmap(crop)(jax.random.split(key, len(images)), padded))


def flip(key: Array, images: Array) -> Array:
    """Mirrors each picture left to right with probability 1/2."""
    return jnp.asarray(jax.vmap(pix.random_flip_left_right)(jax.random.split(key, len(images)), images))


@jax.jit
def normalize(images: Array, mean: Array, std: Array) -> Array:
    """(images - mean) / std, channel by channel, in float32."""
    return (images.astype(jnp.float32) - mean) / std


def mixup(key: Array, batch: Batch, alpha: float) -> Batch:
    """Blends each picture and its label with another of the batch: share x + (1 - share) x', one share for all.

    The share is drawn from Beta(alpha, alpha). Source: Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: Beyond empirical
    risk minimization", 2018, arXiv:1710.09412; one share per batch as in the authors' program.
    """
    share_key, order_key = jax.random.split(key)
    share = jax.random.beta(share_key, alpha, alpha)
    order = jax.random.permutation(order_key, len(batch.labels))
    return jax.tree.map(lambda x: share * x + (1 - share) * x[order], batch)

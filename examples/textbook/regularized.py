"""The digits network with what regularizes it: penalties, noise, smooth labels, varied pictures, one more layer."""

from collections.abc import Callable
from typing import Any, NamedTuple

import dm_pix as pix
import jax
import jax.numpy as jnp
from flax import nnx

import gradtx
from examples.textbook import digits
from examples.train_resnet import augment

RATE = 0.05


class Penalty(NamedTuple):
    """Strengths of what changes loss, gradients or steps; 0 is off."""

    l2: float = 0.0  # of |W|^2 / 2 in the loss
    decay: float = 0.0  # decoupled
    l1: float = 0.0  # subgradient
    soft: float = 0.0  # soft threshold per step
    noise: float = 0.0  # variance at the first step
    smoothing: float = 0.0  # share of the label that goes to all classes


class Augmentation(NamedTuple):
    """Strengths of what changes pictures; 0 is off."""

    rotation: float = 0.0  # largest angle, in radians
    shift: float = 0.0  # 1: by up to a pixel
    jitter: float = 0.0  # of brightness, in standard deviations, and of contrast, relative
    flip: float = 0.0  # 1: left to right, with probability 1/2
    mixup: float = 0.0  # alpha


LAYERS: dict[str, Callable[[nnx.Rngs], nnx.Module]] = {  # between the sums of a hidden layer and ReLU
    "dropout 0.2": lambda rngs: nnx.Dropout(0.2, rngs=rngs),
    "dropout 0.5": lambda rngs: nnx.Dropout(0.5, rngs=rngs),
    "batch norm": lambda rngs: nnx.BatchNorm(64, momentum=0.9, rngs=rngs),
    "layer norm": lambda rngs: nnx.LayerNorm(64, rngs=rngs),
    "RMS norm": lambda rngs: nnx.RMSNorm(64, rngs=rngs),
}


def penalized(penalty: Penalty, seed: Any, data: digits.Data, **lengths: Any) -> digits.Curves:
    """The digits network with penalties on its matrices, noise or smooth labels."""
    tx = gradtx.chain(
        gradtx.add_noise(penalty.noise, 0.55, seed),
        gradtx.add_l1_subgradient(penalty.l1, "kernel"),
        gradtx.trace(0.9),
        gradtx.add_decayed_weights(penalty.decay, "kernel"),
        gradtx.scale_by_learning_rate(RATE),
        gradtx.proximal_l1(penalty.soft, "kernel"),
    )

    def objective(model, x, y, key):
        matrices = [w for w in jax.tree.leaves(nnx.state(model, nnx.Param)) if w.ndim == 2]
        labels = smooth(jax.nn.one_hot(y, digits.CLASSES), penalty.smoothing)
        return soft_cross_entropy(model(x), labels) + penalty.l2 / 2 * sum(jnp.sum(w**2) for w in matrices)

    return digits.train(tx, seed, data, objective=objective, **lengths)


def augmented(how: Augmentation, seed: Any, data: digits.Data, **lengths: Any) -> digits.Curves:
    """The digits network on pictures that are varied at random."""
    black = data.train.x.min()

    def objective(model, x, y, key):
        batch = vary(how, key, augment.Batch((x - black).reshape(-1, 8, 8, 1), jax.nn.one_hot(y, digits.CLASSES)))
        return soft_cross_entropy(model(batch.images.reshape(x.shape) + black), batch.labels)

    return digits.train(gradtx.sgd(RATE, momentum=0.9), seed, data, objective=objective, **lengths)


class Layered(nnx.Module):
    """The digits network with one more layer between the sums of each hidden layer and ReLU."""

    def __init__(self, rngs: nnx.Rngs, layer: Callable[[nnx.Rngs], nnx.Module]):
        self.plain = digits.Perceptron(rngs)
        self.between = nnx.List([layer(rngs) for _ in self.plain.hidden])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, 10]` of pictures `[n, 64]`."""
        for linear, between in zip(self.plain.hidden, self.between, strict=True):
            x = nnx.relu(between(linear(x)))
        return self.plain.last(x)


def layered(layer: Callable, seed: Any, data: digits.Data, **lengths: Any) -> digits.Curves:
    """The digits network with dropout or normalization."""
    network = lambda rngs: Layered(rngs, layer)
    return digits.train(gradtx.sgd(RATE, momentum=0.9), seed, data, network=network, **lengths)


def smooth(labels: jax.Array, share: Any) -> jax.Array:
    """(1 - share) y + share / classes: a label that is less sure."""
    return (1 - share) * labels + share / labels.shape[-1]


def soft_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean of -sum y log p over a batch, y a probability of each class."""
    return -jnp.mean(jnp.sum(labels * jax.nn.log_softmax(logits), axis=-1))


def vary(how: Augmentation, key: jax.Array, batch: augment.Batch) -> augment.Batch:
    """Rotates, shifts, changes brightness and contrast, flips and mixes, each if its strength is not 0.

    Args:
      how: the strengths.
      key: random key.
      batch: pictures `[n, 8, 8, 1]` whose black is 0, and one-hot labels.
    """
    turn, move, bright, contrast, mirror, mix = jax.random.split(key, 6)
    each = lambda key: jax.random.split(key, len(batch.images))
    angles = how.rotation * jax.random.uniform(turn, (len(batch.images),), minval=-1.0)
    # One by one: XLA's program for the CPU crashed on the gathers of a batch of batches (JAX 0.10.2).
    rotate = lambda images, angles: jax.lax.map(lambda pair: pix.rotate(*pair), (images, angles))
    brighten = jax.vmap(lambda key, image: pix.random_brightness(key, image, how.jitter))
    sharpen = jax.vmap(lambda key, image: pix.random_contrast(key, image, 1 - how.jitter, 1 + how.jitter))
    only_if = lambda strength, new, old: jax.tree.map(lambda a, b: jnp.where(strength > 0, a, b), new, old)
    x = only_if(how.rotation, rotate(batch.images, angles), batch.images)
    x = only_if(how.shift, augment.shift(move, x, padding=1), x)
    x = only_if(how.jitter, sharpen(each(contrast), brighten(each(bright), x)), x)
    x = only_if(how.flip, augment.flip(mirror, x), x)
    batch = augment.Batch(x, batch.labels)
    alpha: Any = jnp.where(how.mixup > 0, how.mixup, 1.0)  # there is no Beta(0, 0)
    return only_if(how.mixup, augment.mixup(mix, batch, alpha), batch)

"""The digits network: a small multilayer perceptron on scikit-learn's handwritten digits, trained in one program.

`train` is a pure function of transformation, key and data, so many runs train at once under `jax.vmap` and
`gradtx.tuning.run_population`.
"""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import gradtx
from examples.train_resnet import data as pictures

CLASSES = 10


class Part(NamedTuple):
    """Pictures, float32 `[n, 64]` with mean 0 and variance 1 over all pixels, and their labels, int32 `[n]`."""

    x: Array
    y: Array


class Data(NamedTuple):
    """Three disjoint parts: to train on, to choose by, to state the result on."""

    train: Part
    validation: Part
    test: Part


class Curves(NamedTuple):
    """What a run measured at its points, float32 `[points]`, the last after the last step."""

    step: Array
    train_loss: Array
    train_accuracy: Array
    validation_loss: Array
    validation_accuracy: Array
    test_loss: Array
    test_accuracy: Array


def load(train: int | None = None) -> Data:
    """The digits: 1077 to train on (or the first `train` of them, shuffled), 360 to choose by, 360 to test on."""
    found = pictures.digits()
    mean, std = found.mean_and_std()
    order = np.random.default_rng(0).permutation(len(found.train))[:train]

    def part(some):
        flat = (some.images.reshape(len(some), -1) - mean) / std
        return Part(jnp.asarray(flat, jnp.float32), jnp.asarray(some.labels))

    return Data(part(found.train[order]), part(found.validation), part(found.test))


class Perceptron(nnx.Module):
    """Layers of 64 inputs, `widths` hidden units and 10 outputs, ReLU between."""

    def __init__(self, rngs: nnx.Rngs, widths: tuple[int, ...] = (64, 64)):
        sizes = (64, *widths)
        self.hidden = nnx.List([nnx.Linear(m, n, rngs=rngs) for m, n in itertools.pairwise(sizes)])
        self.last = nnx.Linear(sizes[-1], CLASSES, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Logits `[n, 10]` of pictures `[n, 64]`."""
        for layer in self.hidden:
            x = nnx.relu(layer(x))
        return self.last(x)


def cross_entropy(model: Callable, x: Array, y: Array, key: Array | None = None) -> Array:
    """The mean over a batch of -log of the probability given to the right class."""
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(model(x)), y[:, None], axis=-1))


def structure(network: Callable[[nnx.Rngs], nnx.Module] = Perceptron) -> nnx.GraphDef:
    """What makes a module of parameters, without computing any."""
    return nnx.graphdef(nnx.eval_shape(lambda: network(nnx.Rngs(0))))


class Training(NamedTuple):
    """A run between two steps."""

    params: Any
    rest: Any  # what the network holds besides: batch statistics, random streams
    state: Any  # the optimizer's
    key: Array  # of all batches to come
    step: Array  # int32 scalar: updates made so far


def begin(tx: gradtx.GradientTransformation, seed: Array | int, network: Callable = Perceptron) -> Training:
    """First weights. Two runs with one seed differ in `tx` alone."""
    model_key, key = jax.random.split(jax.random.key(seed))
    _, params, rest = nnx.split(network(nnx.Rngs(model_key)), nnx.Param, ...)
    return Training(params, rest, tx.init(params), key, jnp.zeros((), jnp.int32))


def advance(
    tx: gradtx.GradientTransformation,
    training: Training,
    data: Data,
    steps: int,
    *,
    network: Callable[[nnx.Rngs], nnx.Module] = Perceptron,
    objective: Callable = cross_entropy,
    batch: int = 64,
) -> Training:
    """Makes `steps` updates. Arguments as of `train`."""
    graph = structure(network)

    def step(now: Training, _):
        rows_key, loss_key = jax.random.split(jax.random.fold_in(now.key, now.step))
        rows = jax.random.randint(rows_key, (batch,), 0, len(data.train.y))

        def loss(params):
            model = nnx.merge(graph, params, now.rest, copy=True)  # statistics change within the gradient
            model.train()
            value = objective(model, data.train.x[rows], data.train.y[rows], loss_key)
            return value, nnx.split(model, nnx.Param, ...)[2]

        (value, rest), grads = jax.value_and_grad(loss, has_aux=True)(now.params)
        updates, state = tx.update(grads, now.state, now.params, value=value)
        return Training(gradtx.apply_updates(now.params, updates), rest, state, now.key, now.step + 1), None

    return jax.lax.scan(step, training, length=steps)[0]


def evaluate(training: Training, part: Part, network: Callable = Perceptron) -> tuple[Array, Array]:
    """Cross-entropy and accuracy, without dropout and with the batch statistics of training."""
    model: Any = nnx.merge(structure(network), training.params, training.rest)
    model.eval()
    return cross_entropy(model, *part), jnp.mean(jnp.argmax(model(part.x), axis=-1) == part.y)


def train(
    tx: gradtx.GradientTransformation,
    seed: Array | int,
    data: Data,
    *,
    network: Callable[[nnx.Rngs], nnx.Module] = Perceptron,
    objective: Callable = cross_entropy,
    steps: int = 600,
    points: int = 30,
    batch: int = 64,
) -> Curves:
    """Trains a network from scratch and measures it at `points` equally spaced times.

    Args:
      tx: the optimizer.
      seed: of the first weights and the batches; two runs with one seed differ in `tx` alone.
      data: to train and to measure on.
      network: builds the module from its random streams; it may hold dropout and batch statistics.
      objective: (module in training mode, x, y, key) -> loss to descend; measured is always the cross-entropy.
      steps: updates, a multiple of `points`.
      points: measurements.
      batch: pictures per step, drawn at random with replacement.
    """

    def stretch(now: Training, _):
        now = advance(tx, now, data, steps // points, network=network, objective=objective, batch=batch)
        return now, Curves(now.step, *[number for part in data for number in evaluate(now, part, network)])

    return jax.lax.scan(stretch, begin(tx, seed, network), length=points)[1]

"""Trains the network with one transformation after another, each from the same weights on the same mini-batches."""

import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import gradtx
from examples.train_resnet.augment import Augmentation, Batch, augment, normalize
from examples.train_resnet.data import Dataset, Pictures, padded_batches, shuffled_batches
from examples.train_resnet.optimizers import Regularization, Trial, build, learning_rate
from examples.train_resnet.resnet import ResNet

EVALUATION_BATCH = 500  # at most; no result depends on it


@dataclass(frozen=True)
class Settings:
    """What all runs of a comparison have in common.

    Attributes:
      epochs: passes over the training pictures.
      warmup_epochs: epochs in which a warmup schedule's rate rises; fewer than `epochs`, and not necessarily whole.
      batch_size: pictures in a training step.
      augmentation: how training pictures are varied.
      regularization: how weights decay.
      seed: of the initial weights, the order of the pictures and their augmentation.
    """

    epochs: int
    warmup_epochs: float
    batch_size: int
    augmentation: Augmentation
    regularization: Regularization
    seed: int


class Epoch(NamedTuple):
    """What is recorded at the end of an epoch.

    Attributes:
      epoch: its number, from 1.
      learning_rate: of the epoch's last step.
      train_loss: mean cross-entropy over the epoch's (augmented) batches.
      validation_loss: mean cross-entropy over the validation pictures.
      validation_accuracy: share of the validation pictures that are classified right.
      seconds: that training and validation took.
    """

    epoch: int
    learning_rate: float
    train_loss: float
    validation_loss: float
    validation_accuracy: float
    seconds: float


@dataclass
class Run:
    """One trial's outcome.

    Attributes:
      trial: optimizer, schedule and learning rate.
      transformation: the code that builds the gradient transformation.
      history: the epochs before the loss diverged, if it did.
      test_accuracy: share of the test pictures that the trained network classifies right; None if it diverged.
      diverged_in: the epoch whose training loss was not finite, which ended the run; None if there was none.
      seconds: that the run took, with the compilation that it may have needed.
    """

    trial: Trial
    transformation: str
    history: list[Epoch] = field(default_factory=list)
    test_accuracy: float | None = None
    diverged_in: int | None = None
    seconds: float = 0.0

    @property
    def score(self) -> tuple[float, float]:
        """What runs are compared by: the last validation accuracy, then the lower validation loss."""
        if self.diverged_in or not self.history:
            return -math.inf, -math.inf
        last = self.history[-1]
        return last.validation_accuracy, -last.validation_loss if math.isfinite(last.validation_loss) else -math.inf


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """What a training step changes, and the network's structure, which stays.

    Attributes:
      params: the trained weights, nested dicts of arrays.
      batch_stats: running means and variances of batch normalization, nested dicts of arrays.
      opt_state: the gradient transformation's state.
      graphdef: the network without its arrays.
    """

    params: dict
    batch_stats: dict
    opt_state: Any
    graphdef: nnx.GraphDef = field(metadata={"static": True})


def train_step(tx: gradtx.GradientTransformation, state: TrainState, batch: Batch) -> tuple[TrainState, Array]:
    """One step: the next state, and the batch's mean cross-entropy before it."""

    def loss_and_stats(params):
        network = nnx.merge(state.graphdef, params, state.batch_stats)
        logits = network(batch.images, train=True)
        loss = -jnp.sum(batch.labels * jax.nn.log_softmax(logits), axis=-1).mean()
        return loss, nnx.to_pure_dict(nnx.state(network, nnx.BatchStat))

    (loss, batch_stats), gradients = jax.value_and_grad(loss_and_stats, has_aux=True)(state.params)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = gradtx.apply_updates(state.params, updates)
    return TrainState(params, batch_stats, opt_state, state.graphdef), loss


@functools.partial(jax.jit, static_argnums=0)
def evaluate_batch(graphdef: nnx.GraphDef, params: dict, batch_stats: dict, images: Array, labels: Array):
    """The summed cross-entropy and the number of right answers of normalized pictures; label -1 counts for neither."""
    logits = nnx.merge(graphdef, params, batch_stats)(images, train=False)
    losses = -jnp.sum(jax.nn.one_hot(labels, logits.shape[-1]) * jax.nn.log_softmax(logits), axis=-1)
    return losses.sum(), jnp.sum(logits.argmax(axis=-1) == labels)


class CountedCalls:
    """A function that counts its calls. Under `jax.jit` it is called once per trace, so it counts compilations."""

    def __init__(self, function: Callable):
        self.function, self.count = function, 0

    def __call__(self, *args):
        """Calls the function."""
        self.count += 1
        return self.function(*args)


class Trainer:
    """Trains one network on one dataset with any number of transformations.

    Args:
      data: what to train, validate and test on.
      settings: what all runs have in common.
    """

    def __init__(self, data: Dataset, settings: Settings):
        self.data, self.settings = data, settings
        self.mean, self.std = data.mean_and_std()
        self.steps_per_epoch = len(data.train) // settings.batch_size
        # This generator's kernels compile ten times faster on CPUs than the default's: seconds, with seven shapes.
        rngs = nnx.Rngs(jax.random.key(settings.seed, impl="rbg"))
        network = ResNet(len(data.classes), channels_in=data.train.images.shape[-1], rngs=rngs)
        self.graphdef, params, batch_stats = nnx.split(network, nnx.Param, nnx.BatchStat)
        # Plain dicts pass through jit several times faster than nnx.State, whose flattening is written in Python.
        self.initial = nnx.to_pure_dict(params), nnx.to_pure_dict(batch_stats)
        self.traced = CountedCalls(train_step)
        self.step = jax.jit(self.traced, donate_argnums=1)

    @property
    def parameters(self) -> int:
        """How many numbers are trained."""
        return sum(p.size for p in jax.tree.leaves(self.initial[0]))

    def train(self, trial: Trial, on_step: Callable[[], None], on_epoch: Callable[[Epoch], None]) -> Run:
        """Trains from the initial weights, and stops early if the loss is no longer finite.

        Args:
          trial: optimizer, schedule and learning rate.
          on_step: called after each training step.
          on_epoch: called after each epoch.
        """
        started = time.perf_counter()
        settings, total_steps = self.settings, self.settings.epochs * self.steps_per_epoch
        warmup_steps = int(settings.warmup_epochs * self.steps_per_epoch)
        rate = learning_rate(trial, warmup_steps=warmup_steps, total_steps=total_steps)
        tx = build(trial.optimizer, rate, settings.regularization)
        params, batch_stats = jax.tree.map(jnp.copy, self.initial)  # copies, for the step donates what it is given
        state = TrainState(params, batch_stats, tx.init(params), self.graphdef)
        run = Run(trial, repr(tx))
        for epoch in range(1, settings.epochs + 1):
            epoch_started = time.perf_counter()
            state, train_loss = self._epoch(tx, state, epoch, on_step)
            if not math.isfinite(train_loss):
                run.diverged_in = epoch
                break
            validation_loss, validation_accuracy = self.evaluate(state, self.data.validation)
            last_step = epoch * self.steps_per_epoch - 1
            last_rate = float(np.asarray(rate(jnp.asarray(last_step)) if callable(rate) else rate))
            seconds = time.perf_counter() - epoch_started
            run.history.append(Epoch(epoch, last_rate, train_loss, validation_loss, validation_accuracy, seconds))
            on_epoch(run.history[-1])
        else:
            _, run.test_accuracy = self.evaluate(state, self.data.test)
        run.seconds = time.perf_counter() - started
        return run

    def _epoch(self, tx, state: TrainState, epoch: int, on_step: Callable[[], None]) -> tuple[TrainState, float]:
        settings, losses = self.settings, []
        rng = np.random.default_rng([settings.seed, epoch])
        for batch in shuffled_batches(self.data.train, settings.batch_size, rng):
            key = jax.random.key(rng.integers(2**32, dtype=np.uint32))
            batch = augment(
                key,
                batch.images,
                batch.labels,
                self.mean,
                self.std,
                classes=len(self.data.classes),
                augmentation=settings.augmentation,
            )
            state, loss = self.step(tx, state, batch)
            if losses:  # stay one step ahead of the device: an honest progress bar, a bounded queue
                jax.block_until_ready(losses[-1])
            losses.append(loss)
            on_step()
        return state, float(np.mean(jax.device_get(losses)))

    def evaluate(self, state: TrainState, pictures: Pictures) -> tuple[float, float]:
        """Mean cross-entropy and accuracy over the pictures."""
        loss, right = 0.0, 0
        for batch in padded_batches(pictures, min(EVALUATION_BATCH, len(pictures))):
            images = normalize(batch.images, self.mean, self.std)
            more = evaluate_batch(state.graphdef, state.params, state.batch_stats, images, batch.labels)
            loss, right = loss + float(more[0]), right + int(more[1])
        return loss / len(pictures), right / len(pictures)

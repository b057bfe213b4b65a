import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx
from examples.train_resnet import train
from examples.train_resnet.augment import Augmentation, Batch
from examples.train_resnet.data import Dataset, digits
from examples.train_resnet.optimizers import Regularization, Trial
from examples.train_resnet.train import Epoch, Run, Settings, Trainer, TrainState, train_step

RATES = (0.01, 0.1, 1e30)  # the last diverges


@pytest.fixture(scope="module")
def trainer():
    data = digits()
    data = Dataset("few digits", data.classes, data.train[:64], data.validation[:10], data.test[:10])
    augmentation, regularization = Augmentation(padding=1, flip=False), Regularization(5e-4, 0.05)
    return Trainer(data, Settings(3, 0.5, 32, augmentation, regularization, seed=0))


@pytest.fixture(scope="module")
def runs(trainer):
    return [trainer.train(Trial("sgd", "warmup_cosine", rate), lambda: None, lambda _: None) for rate in RATES]


def test_one_compilation_serves_all_rates(trainer, runs):
    assert len({run.transformation for run in runs}) == len(RATES)
    assert trainer.traced.count == 1


def test_training_learns(runs):
    losses = [epoch.train_loss for epoch in runs[0].history]
    assert len(losses) == 3
    assert losses[-1] < losses[0] - 0.1
    assert runs[0].history[-1].learning_rate == pytest.approx(0.01 * (1 + np.cos(np.pi * 4 / 5)) / 2, rel=1e-5)
    assert 0 <= runs[0].test_accuracy <= 1


def test_the_same_trial_gives_the_same_run(trainer, runs):
    steps = []
    again = trainer.train(runs[0].trial, lambda: steps.append(1), lambda _: None)
    same = [
        dataclasses.asdict(run) | {"seconds": 0, "history": [e[:-1] for e in run.history]} for run in (runs[0], again)
    ]
    assert same[0] == same[1]
    assert len(steps) == 6
    assert trainer.traced.count == 1


def test_a_run_that_diverges_stops_and_scores_lowest(runs):
    diverged = runs[-1]
    assert diverged.diverged_in is not None and diverged.test_accuracy is None
    assert len(diverged.history) == diverged.diverged_in - 1
    assert diverged.score < min(run.score for run in runs[:-1])


def test_scores_order_by_accuracy_then_loss():
    def run(accuracy, loss):
        return Run(Trial("sgd", "constant", 0.1), "", [Epoch(1, 0.1, 1.0, loss, accuracy, 1.0)])

    order = [run(0.9, 9.0), run(0.95, float("nan")), run(0.95, 0.3), run(0.95, 0.2)]
    assert sorted(reversed(order), key=lambda r: r.score) == order


def test_evaluation_does_not_depend_on_its_batches(trainer, monkeypatch):
    params, batch_stats = trainer.initial
    state = TrainState(params, batch_stats, None, trainer.graphdef)
    pictures = trainer.data.validation
    whole = trainer.evaluate(state, pictures)
    monkeypatch.setattr(train, "EVALUATION_BATCH", 4)  # 4, 4, and 2 with filling
    parts = trainer.evaluate(state, pictures)
    np.testing.assert_allclose(parts, whole, rtol=1e-5)

    network = nnx.merge(trainer.graphdef, params, batch_stats)
    logits = np.asarray(network((pictures.images - trainer.mean) / trainer.std, train=False), np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    losses = -log_p[np.arange(10), pictures.labels]
    np.testing.assert_allclose(whole, (losses.mean(), np.mean(logits.argmax(axis=1) == pictures.labels)), rtol=1e-4)


def test_a_step_changes_every_weight_and_running_average_but_not_the_start(trainer):
    before = jax.tree.map(np.asarray, trainer.initial)
    params, batch_stats = jax.tree.map(jnp.copy, trainer.initial)
    tx = gradtx.sgd(0.1, momentum=0.9)
    state = TrainState(params, batch_stats, tx.init(params), trainer.graphdef)
    images = np.random.default_rng(0).normal(size=(32, 8, 8, 1)).astype(np.float32)
    step = jax.jit(train_step, donate_argnums=1)  # not the trainer's, which counts
    state, loss = step(tx, state, Batch(images, np.eye(10, dtype=np.float32)[np.arange(32) % 10]))
    assert np.isfinite(loss)
    after = state.params, state.batch_stats
    for path, moved in jax.tree_util.tree_leaves_with_path(jax.tree.map(lambda a, b: (a != b).any(), before, after)):
        assert moved, jax.tree_util.keystr(path)
    jax.tree.map(np.testing.assert_array_equal, trainer.initial, before)  # the step was given copies to consume

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from examples.train_resnet.optimizers import OPTIMIZERS, SCHEDULES, Regularization, Trial, build, learning_rate
from tests.public import PUBLIC

REGULARIZATION = Regularization(l2=0.1, weight_decay=0.2)


def transformation(optimizer, schedule, rate):
    trial = Trial(optimizer, schedule, rate)
    return build(optimizer, learning_rate(trial, warmup_steps=3, total_steps=10), REGULARIZATION)


@pytest.mark.parametrize(("optimizer", "schedule"), list(itertools.product(OPTIMIZERS, SCHEDULES)))
def test_rates_differ_in_leaves_and_not_in_structure(optimizer, schedule):
    one, other = transformation(optimizer, schedule, 0.1), transformation(optimizer, schedule, 0.001)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert one != other
    assert eval(repr(one), dict(PUBLIC)) == one


def test_warmup_is_linear_and_annealing_a_cosine():
    rate = learning_rate(Trial("sgd", "warmup_cosine", 0.1), warmup_steps=4, total_steps=12)
    expected = [0.1 * t / 4 if t < 4 else 0.05 * (1 + np.cos(np.pi * (t - 4) / 8)) for t in range(13)]
    np.testing.assert_allclose([float(rate(jnp.asarray(t))) for t in range(13)], expected, atol=1e-8)


@pytest.mark.parametrize(("optimizer", "expected"), [("sgd", -0.5 * 0.1 * 2), ("adam", 0), ("adamw", -0.5 * 0.2 * 2)])
def test_kernels_decay_and_biases_do_not(optimizer, expected):
    params = {"kernel": jnp.full((3,), 2.0), "bias": jnp.full((3,), 2.0)}
    tx = transformation(optimizer, "constant", 0.5)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    np.testing.assert_allclose(updates["kernel"], expected, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_unknown_names_are_errors():
    with pytest.raises(ValueError, match="unknown optimizer 'sdg'"):
        build("sdg", 0.1, REGULARIZATION)
    with pytest.raises(ValueError, match="unknown schedule 'cosin'"):
        learning_rate(Trial("sgd", "cosin", 0.1), warmup_steps=1, total_steps=2)

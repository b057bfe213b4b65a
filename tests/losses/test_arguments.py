"""Signatures are Optax's; what does not fit is an error that names the loss and the argument."""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import losses

NAMES = [name for name in dir(optax.losses) if not name.startswith("_")]


def arguments(fn):
    return [(p.name, p.kind, p.default) for p in inspect.signature(fn).parameters.values()]


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_is_optaxs_and_what_is_flat_there_is_flat_here(name):
    ours, theirs = getattr(losses, name), getattr(optax.losses, name)
    assert arguments(ours) == arguments(getattr(theirs, "fun", theirs))
    assert (getattr(gradtx, name, None) is ours) == hasattr(optax, name)


X, BATCH = jnp.zeros((3, 4)), jnp.zeros(3)
INTEGERS = jnp.zeros((3, 4), jnp.int32)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "error", "message"),
    [
        ("squared_error", (X, X[:, :1]), {}, ValueError, "predictions has shape .3, 4. and targets .3, 1."),
        ("l2_loss", (BATCH, BATCH[:, None]), {}, ValueError, "they must be equal"),
        ("perceptron_loss", (X, BATCH), {}, ValueError, "predictor_outputs has shape"),
        ("squared_error", (INTEGERS,), {}, TypeError, "predictions must be floating, got int32"),
        ("huber_loss", (INTEGERS,), {}, TypeError, "predictions must be floating"),
        ("log_cosh", (INTEGERS,), {}, TypeError, "predictions must be floating"),
        ("cosine_similarity", (X, INTEGERS), {}, TypeError, "targets must be floating"),
        ("softmax_cross_entropy", (INTEGERS, X), {}, TypeError, "logits must be floating"),
        ("softmax_cross_entropy_with_integer_labels", (X, BATCH), {}, TypeError, "labels must be integer, got float32"),
        ("softmax_cross_entropy_with_integer_labels", (X, INTEGERS), {"axis": None}, ValueError, "axis must be"),
        ("poly_loss_cross_entropy", (X, INTEGERS), {}, TypeError, "labels must be floating"),
        ("kl_divergence", (X, INTEGERS), {}, TypeError, "targets must be floating"),
        ("kl_divergence_with_log_targets", (X, INTEGERS), {}, TypeError, "log_targets must be floating"),
        ("sigmoid_focal_loss", (INTEGERS, X), {}, TypeError, "logits must be floating"),
        ("smooth_labels", (INTEGERS, 0.1), {}, TypeError, "labels must be floating"),
        ("ntxent", (X, INTEGERS[0]), {}, ValueError, "leading dimension, got .4,. and .3, 4."),
        ("triplet_margin_loss", (X, X, INTEGERS), {}, TypeError, "negatives must be floating"),
        ("dice_loss", (X, X[:2]), {}, ValueError, "predictions has shape"),
        ("dice_loss", (X, X), {"reduction": "max"}, ValueError, "reduction must be 'mean', 'sum' or 'none', got 'max'"),
        ("dice_loss", (X, X), {"apply_softmax": False}, ValueError, "valid probability distributions"),
        ("dice_loss", (X[..., :1] - 1, X[..., :1]), {"apply_softmax": False}, ValueError, "probabilities in .0, 1."),
        ("dice_loss", (X, X), {"class_weights": 1.0}, ValueError, "class_weights must have 1 dim"),
    ],
)
def test_what_does_not_fit_is_an_error(name, args, kwargs, error, message):
    with pytest.raises(error, match=f"`{name}`: .*{message}"):
        getattr(losses, name)(*args, **kwargs)


def test_numpy_numbers_may_be_axes_and_flags():
    x, y = jax.random.normal(jax.random.key(0), (2, 3, 4)), jax.nn.softmax(jnp.arange(4.0))
    last: Any = np.int64(2)
    no: Any = np.bool_(False)
    np.testing.assert_array_equal(
        jax.jit(lambda x: losses.softmax_cross_entropy(x, y, axis=last))(x),
        jax.jit(lambda x: losses.softmax_cross_entropy(x, y, axis=2))(x),
    )
    found = jax.jit(lambda x: losses.dice_loss(jax.nn.softmax(x), x, apply_softmax=no))(x)
    np.testing.assert_allclose(found, losses.dice_loss(x, x), rtol=1e-5)  # float32, sums of tens of numbers


def test_probabilities_in_bfloat16_are_probabilities():
    p = jax.nn.softmax(jax.random.normal(jax.random.key(0), (2, 8, 8, 10)), axis=-1).astype(jnp.bfloat16)
    assert jnp.all(jnp.isfinite(losses.dice_loss(p, p, apply_softmax=False)))
    assert losses.binary_dice_loss(p[..., :1], p[..., :1], apply_sigmoid=False).shape == (2,)


def test_numpy_arrays_and_numbers_are_taken_as_they_are():
    x = np.array([0.5, -1.0], np.float32)
    assert losses.huber_loss(x, 0.0).dtype == jnp.float32
    assert losses.l2_loss(2.0, 1.0) == 0.5
    assert losses.hinge_loss(x, np.array([1, -1])).dtype == jnp.float32


def test_a_loss_tells_what_it_is():
    assert losses.ntxent.__module__ == "gradtx.losses.self_supervised" and losses.ntxent.__doc__

"""make_fenchel_young_loss: cross entropy and perceptron from their maxima, shapes, further arguments, edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gradtx import losses

RNG = np.random.default_rng(0)
SCORES, TARGETS = RNG.normal(size=(2, 3, 4)), RNG.dirichlet(np.ones(4), size=(2, 3))


def test_the_log_of_the_sum_of_powers_makes_the_cross_entropy():
    with jax.enable_x64(True):
        loss = losses.make_fenchel_young_loss(jax.nn.logsumexp)
        found = loss(SCORES, TARGETS)
        np.testing.assert_allclose(found, losses.softmax_cross_entropy(SCORES, TARGETS), rtol=1e-12)
        max_fun: Any = jax.nn.logsumexp
        theirs = optax.losses.make_fenchel_young_loss(max_fun)(SCORES, TARGETS)
        np.testing.assert_allclose(found, theirs, rtol=1e-12)
        slope = jax.grad(lambda s: jnp.sum(loss(s, TARGETS)))(jnp.asarray(SCORES))
        np.testing.assert_allclose(slope, jax.nn.softmax(SCORES) - TARGETS, rtol=1e-10, atol=1e-12)


def test_the_maximum_makes_the_perceptrons_loss():
    labels = np.array([[0, 1, 2], [3, 0, 1]])
    found = losses.make_fenchel_young_loss(jnp.max)(SCORES, np.eye(4)[labels])
    np.testing.assert_allclose(found, losses.multiclass_perceptron_loss(SCORES, labels), rtol=1e-6, atol=1e-7)


def test_further_arguments_go_to_the_maximum():
    temperature = lambda scores, t, *, shift: t * jax.nn.logsumexp(scores / t) + shift
    found = losses.make_fenchel_young_loss(temperature)(SCORES, TARGETS, 2.0, shift=1.0)
    want = 2 * jax.nn.logsumexp(SCORES / 2, axis=-1) + 1 - np.sum(SCORES * TARGETS, -1)
    np.testing.assert_allclose(found, want, rtol=1e-5)  # float32


def test_an_excluded_class_counts_as_nothing():
    scores = jnp.array([1.0, -jnp.inf, 2.0])
    loss = losses.make_fenchel_young_loss(jax.nn.logsumexp)
    value, slope = jax.value_and_grad(loss)(scores, jnp.array([0.0, 0.0, 1.0]))
    np.testing.assert_allclose(value, np.log1p(np.exp(-1)), rtol=1e-6)
    np.testing.assert_allclose(slope, jax.nn.softmax(scores) - jnp.array([0, 0, 1.0]), atol=1e-6)

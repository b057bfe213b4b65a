"""fromage: Bernstein, Vahdat, Yue, Liu 2020, Algorithm 1."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm


def fromage(lr: Any, min_norm=1e-6):
    """W = (W - lr |W| / |G| G) / sqrt(1 + lr^2), norms from below at min_norm."""

    @leafwise
    def rule(p):
        def step(g, p, t):
            rate: Any = lr(t - 1) if callable(lr) else lr
            ratio = max(norm(p), min_norm) / max(norm(g), min_norm)
            return (p - rate * ratio * g) / np.sqrt(1 + rate**2) - p

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"min_norm": 3.0}, {"min_norm": 0.0}])
@pytest.mark.parametrize("lr", [0.02, 0.5, lambda t: 0.1 / (1 + t)])
def test_fromage_steps_by_a_fraction_of_the_norm_and_shrinks(lr, options, precision):
    check(gradtx.fromage(lr, **options), fromage(lr, **options), precision)


def test_complex_parameters_move_as_the_pairs_of_reals_that_they_are():
    check(gradtx.fromage(0.1), fromage(0.1), complex_leaves=("dense/kernel", "scale"))


def test_a_gradient_at_a_right_angle_leaves_the_norm():
    p, g = jnp.array([3.0, 4.0]), jnp.array([-40.0, 30.0])
    tx = gradtx.fromage(0.7)
    updates, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(jnp.linalg.norm(p + updates), 5.0, rtol=1e-6)


@pytest.mark.parametrize("scheduled", [False, True])
@pytest.mark.parametrize("rate", [1e-3, 1e-5])
def test_the_shrinking_of_a_small_rate_is_not_rounded_away(rate, scheduled):
    """1 / sqrt(1 + lr^2) is 1 in float32 from 2e-4 on; the update is about -lr^2 / 2 p where the gradient is 0."""
    p = jnp.array([1.0, -2.0])
    tx = gradtx.fromage((lambda t: rate) if scheduled else rate)
    updates, _ = tx.update(jnp.zeros(2), tx.init(p), p)
    np.testing.assert_allclose(updates, -np.array([1.0, -2.0]) * rate**2 / 2, rtol=1e-5)


def test_it_tells_a_monitor_its_rate():
    tx = gradtx.monitor(gradtx.fromage(1.0))
    p = jnp.ones(2)
    _, state = tx.update(p, tx.init(p), p)
    np.testing.assert_allclose(jax.tree.leaves(gradtx.metrics(state)["learning_rate"])[0], 0.5**0.5, rtol=1e-6)


def test_without_params_it_says_that_it_reads_them():
    tx = gradtx.fromage(0.1)
    with pytest.raises(ValueError, match=r"`fromage` reads the parameters"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))


def test_a_negative_norm_is_an_error():
    with pytest.raises(ValueError, match=r"`fromage`: min_norm .* -1\.0"):
        gradtx.fromage(0.1, -1.0)

"""scale, scale_by_learning_rate, scale_by_schedule: a number or a schedule times the updates."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def times(factor):
    """u = factor(t) g, t from 0."""

    @leafwise
    def rule(p):
        return lambda g, p, t: factor(t - 1) * g

    return rule


def falling(t):
    return 0.5 / (1 + t) ** 2


@both_precisions
def test_scale_multiplies_by_its_number(precision):
    check(gradtx.scale(-0.25), times(lambda t: -0.25), precision)


@both_precisions
def test_scale_by_learning_rate_multiplies_by_minus_the_rate(precision):
    check(gradtx.scale_by_learning_rate(0.3), times(lambda t: -0.3), precision)


@both_precisions
def test_scale_by_learning_rate_keeps_the_sign_when_told_to(precision):
    check(gradtx.scale_by_learning_rate(0.3, flip_sign=False), times(lambda t: 0.3), precision)


@both_precisions
def test_a_schedule_gives_the_rate_of_the_updates_made_before(precision):
    check(gradtx.scale_by_learning_rate(falling), times(lambda t: -falling(t)), precision)
    check(gradtx.scale_by_schedule(falling), times(falling), precision)
    check(gradtx.scale(falling), times(falling), precision)


def test_every_link_of_a_chain_sees_the_same_step():
    tx = gradtx.chain(gradtx.scale_by_schedule(lambda t: 1 + t), gradtx.scale_by_schedule(lambda t: 10 + t))
    g = jnp.ones(())
    state, seen = tx.init(g), []
    for _ in range(4):
        updates, state = tx.update(g, state, g)
        seen.append(float(updates))
    assert seen == [10.0, 22.0, 36.0, 52.0]


def test_a_small_rate_is_not_rounded_to_the_gradients_precision():
    """bfloat16 would make 1e-3 of it 9.9945e-4; float16 would make 1e-8 zero."""
    for dtype, rate in [(jnp.bfloat16, 1e-3), (jnp.float16, 1e-8)]:
        g = jnp.ones(2, dtype)
        tx = gradtx.scale_by_learning_rate(rate)
        updates, _ = tx.update(g, tx.init(g), g)
        assert updates.dtype == jnp.float32
        np.testing.assert_allclose(updates, [-rate, -rate], rtol=1e-6)


def test_the_rate_makes_a_descent_direction_of_a_complex_gradient():
    """jax.grad gives dL/dx - i dL/dy; the step downhill is minus its conjugate."""
    g = jnp.array([1 + 2j, -3j], jnp.complex64)
    tx = gradtx.scale_by_learning_rate(0.5)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, [-0.5 + 1j, -1.5j])


def test_scale_leaves_the_imaginary_sign_alone():
    g = jnp.array([1 + 2j], jnp.complex64)
    tx = gradtx.scale(2.0)
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates, [2 + 4j])


def test_a_rate_that_is_no_number_and_no_function_is_an_error():
    with pytest.raises((TypeError, ValueError), match=r"`scale_by_learning_rate`.*learning_rate.*fast"):
        gradtx.scale_by_learning_rate("fast")


@pytest.mark.parametrize("flip_sign", [True, False])
def test_without_a_rate_the_updates_stay_as_they_are(flip_sign):
    g = jnp.array([1 + 2j, -3j])
    tx = gradtx.scale_by_learning_rate(flip_sign=flip_sign)
    np.testing.assert_array_equal(tx.update(g, tx.init(g))[0], g)
    assert tx == gradtx.scale_by_learning_rate(None, flip_sign=flip_sign)

"""graft: the direction of one method, the norm of another, leaf by leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def method(p):
    """Adam's norm on heavy ball's direction."""
    mean, square, total = np.zeros_like(p), np.zeros_like(p), np.zeros_like(p)

    def step(g, p, t):
        nonlocal mean, square, total
        mean, square, total = 0.9 * mean + 0.1 * g, 0.999 * square + 0.001 * g**2, 0.5 * total + g
        n = mean / (1 - 0.9**t) / (np.sqrt(square / (1 - 0.999**t)) + 1e-8)
        return -total * np.linalg.norm(n) / (np.linalg.norm(total) + 1e-16)

    return step


@both_precisions
def test_the_formula(precision):
    tx = gradtx.chain(gradtx.graft(gradtx.scale_by_adam(), gradtx.trace(0.5)), gradtx.scale(-1.0))
    check(tx, leafwise(method), precision)


def test_a_method_on_itself_is_that_method():
    tx = gradtx.scale_by_adam()
    check_same(gradtx.graft(tx, tx), tx, tolerance=1e-12)
    check_same(gradtx.graft(tx, gradtx.scale(1e-3)), gradtx.graft(tx, gradtx.identity()), tolerance=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extremes_are_finite(scale):
    g = {"a": scale * jnp.ones((2, 3)), "none": jnp.zeros((0, 2))}
    plain, adam = gradtx.identity(), gradtx.scale_by_adam()
    for tx in (gradtx.graft(plain, adam), gradtx.graft(adam, plain)):
        u, _ = tx.update(g, tx.init(g))
        assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(u))
        assert scale or not np.any(u["a"])


def test_schedules_and_foreign_pairs_have_their_place():
    foreign = gradtx.GradientTransformation(lambda params: (), lambda u, s, p=None: (u, s))
    tx = gradtx.graft(foreign, gradtx.scale_by_sign())
    g = jnp.array([3.0, -4.0])
    np.testing.assert_allclose(tx.update(g, tx.init(g))[0], [5 / 2**0.5, -5 / 2**0.5], rtol=1e-6)


def test_a_monitor_sees_the_rate_of_the_length():
    tx = gradtx.monitor(gradtx.graft(gradtx.sgd(0.25), gradtx.chain(gradtx.clip(1.0), gradtx.adam(1e-3))))
    g = jnp.array([3.0, -4.0])
    _, state = tx.update(g, tx.init(g))
    seen = gradtx.metrics(state)
    assert seen["learning_rate"] == 0.25 and seen["clipped_fraction"] == 1

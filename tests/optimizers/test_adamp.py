"""adamp, sgdp: Heo et al. 2021, Algorithms 1 and 2 (arXiv 2006.08217), and their code's two views of a leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def projected(n, g, w, delta, eps, axis):
    """n - (w^ . n) w^ with w^ = w / (|w| + eps), where cos(g, w) < delta / sqrt(dim w), and whether: of every output's
    weights, if it holds of all of them; or of the leaf's.
    """
    if w.ndim < 2:
        return n, ""
    of_outputs, of_leaf = tuple(i for i in range(w.ndim) if i != axis % w.ndim), None
    for kind, over in (("outputs", of_outputs), ("leaf", of_leaf)):
        total = lambda x, over=over: np.sum(x, axis=over, keepdims=True)
        dot = lambda a, b, total=total: total((a * np.conj(b)).real)
        size = lambda x, dot=dot: np.sqrt(dot(x, x)) + eps
        cosine = np.abs(dot(g, w)) / size(g) / size(w)
        if np.max(cosine) < delta / np.sqrt(w.size / cosine.size):
            unit = w / size(w)
            return n - dot(unit, n) * unit, kind
    return n, ""


def method(lr, direction, decay=0.0, delta=0.1, ratio=0.1, eps=1e-8, axis=-1, seen=None):
    """w = w - lr (projected n + wd w), or of a projected one, ratio wd."""

    @leafwise
    def rule(p):
        step_of = direction(p)

        def step(g, p, t):
            n, kind = projected(step_of(g, t), g, p, delta, eps, axis)
            if seen is not None:
                seen.append(kind)
            return -lr * (n + decay * (ratio if kind else 1.0) * p)

        return step

    return rule


def adam(p, b1=0.9, b2=0.999, eps=1e-8):
    m, v = np.zeros_like(p), np.zeros(p.shape)

    def step(g, t):
        nonlocal m, v
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * np.abs(g) ** 2
        return m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)

    return step


def summed(p, decay=0.9):
    v = np.zeros_like(p)

    def step(g, t):
        nonlocal v
        v = decay * v + g
        return v

    return step


DELTAS = {0.0: set(), 0.6: {"leaf", "outputs"}, 10.0: {"outputs"}}


@both_precisions
@pytest.mark.parametrize(("delta", "kinds"), DELTAS.items())
def test_adam_without_what_it_has_along_the_weights(delta, kinds, precision):
    seen = []
    tx = gradtx.adamp(0.1, weight_decay=0.3, delta=delta, decay_ratio=0.5)
    check(tx, method(0.1, adam, 0.3, delta, 0.5, seen=seen), precision, steps=20)
    assert set(seen) - {""} == kinds


def test_momentum_without_what_it_has_along_the_weights():
    check(gradtx.sgdp(0.1, 0.9, 0.3, delta=1.3), method(0.1, summed, 0.3, 1.3))


def test_outputs_may_come_first():
    shapes = {"kernel": (4, 3, 2), "bias": (3,)}
    check(gradtx.sgdp(0.1, 0.9, delta=1.3, output_axis=0), method(0.1, summed, delta=1.3, axis=0), shapes=shapes)
    check(gradtx.sgdp(0.1, 0.9, delta=1.3), method(0.1, summed, delta=1.3), shapes=shapes)


def test_complex_weights_are_pairs_of_reals():
    check(gradtx.sgdp(0.1, 0.9, delta=1.3), method(0.1, summed, delta=1.3), complex_leaves=("dense/kernel",))


def test_without_delta_it_is_the_method_inside():
    check_same(gradtx.adamp(0.1, delta=0.0, weight_decay=0.3), gradtx.adamw(0.1, weight_decay=0.3))


def test_scale_invariant_weights_do_not_grow_by_momentum():
    """Of f(w / |w|): gradients are orthogonal to w, and lengthen it by the steps' squares alone."""
    target = jnp.asarray(np.random.default_rng(0).normal(size=(8, 1)), jnp.float32)
    loss = lambda w: jnp.sum(w / jnp.linalg.norm(w) * target)
    grown = {}
    for name, tx in {"sgdp": gradtx.sgdp(0.05, 0.9), "sgd": gradtx.sgd(0.05, 0.9)}.items():
        w = jnp.ones((8, 1))
        state = tx.init(w)
        with jax.disable_jit():
            for _ in range(10):
                updates, state = tx.update(jax.grad(loss)(w), state, w)
                w = gradtx.apply_updates(w, updates)
        grown[name] = float(jnp.linalg.norm(w) / jnp.sqrt(8))
    assert 1 < grown["sgdp"] < grown["sgd"]


@pytest.mark.parametrize(("argument", "value"), [("weight_decay", -1.0), ("delta", -0.5), ("eps", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`tangential`.*{argument}.*{value}"):
        gradtx.tangential(gradtx.trace(0.9), **{argument: value})


def test_the_outputs_lie_along_one_axis():
    with pytest.raises(TypeError, match="`tangential`: output_axis must be a whole number"):
        gradtx.adamp(0.1, output_axis=jnp.ones(2))  # pyright: ignore[reportArgumentType]

"""soap: Vyas et al. 2025, Algorithm 3 (arXiv 2409.11321), with the order of its authors' code."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check, check_same

# The first gradient of a side longer than all others together says nothing of two directions or more: no such one here.
SHAPES = {"tall": (4, 3), "kernel": (3, 2, 3), "bias": (2,), "scale": ()}


def unfolded(x, side):
    return np.moveaxis(x, side, 0).reshape(x.shape[side], -1)


def turned(x, matrices):
    """Each side k of x multiplied by its matrix."""
    for side, matrix in enumerate(matrices):
        if matrix is not None:
            x = np.moveaxis(np.tensordot(matrix, x, (1, side)), 0, side)
    return x


def soap(
    lr, b1=0.95, b2=0.95, beta=None, eps=1e-8, decay=0.01, every=10, most=10000, vectors=False, normalize=False,
    correct=True, decays=lambda p: True,
):  # fmt: skip
    """F <- beta F + (1 - beta) G G^T after use; Q <- QR(F Q sorted by diag(Q^T F Q)); Adam on Q^T G, nu permuted."""
    beta = b2 if beta is None else beta

    def method(p):
        has = [p.ndim > (not vectors) and 1 < d <= most for d in p.shape]
        factors = [np.zeros((d, d), p.dtype) if mine else None for d, mine in zip(p.shape, has, strict=True)]
        bases: Any = None
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal bases, m, v
            u = np.zeros_like(p)
            if t > 1:
                r = turned(g, [None if q is None else q.T.conj() for q in bases])
                m = b1 * m + (1 - b1) * r
                v = b2 * v + (1 - b2) * abs(r) ** 2
                u = turned(m / (np.sqrt(v) + eps), bases)
                if normalize:
                    u = u / np.sqrt(np.mean(abs(u) ** 2))
                u = -lr * u * (np.sqrt(1 - b2 ** (t - 1)) / (1 - b1 ** (t - 1)) if correct else 1)
                u = u - lr * decay * (p + u) * decays(p)
            for k, f in enumerate(factors):
                if f is not None:
                    factors[k] = beta * f + (1 - beta) * unfolded(g, k) @ unfolded(g, k).conj().T
            if bases is None:
                bases = [None if f is None else np.linalg.eigh(f)[1][:, ::-1] for f in factors]
            elif (t - 1) % every == 0:
                old, bases = bases, list(bases)
                m = turned(m, bases)
                for k, f in enumerate(factors):
                    if f is not None:
                        order = np.argsort(-np.real(np.diag(old[k].conj().T @ f @ old[k])), kind="stable")
                        v = np.take(v, order, axis=k)
                        bases[k] = np.linalg.qr(f @ old[k][:, order])[0]
                m = turned(m, [None if q is None else q.T.conj() for q in bases])
            return u

        return step

    return lambda params: _each(method, params)


def _each(method, params):
    steps = {path: method(p) for path, p in params.items()}
    return lambda grads, params, t: {path: steps[path](grads[path], params[path], t) for path in params}


OPTIONS = [
    ({}, {}),
    ({"every": 3, "beta": 0.8, "decay": 0.2}, {"precondition_frequency": 3, "shampoo_beta": 0.8, "weight_decay": 0.2}),
    ({"every": 1, "b1": 0.5, "b2": 0.9, "eps": 0.1, "vectors": True},
     {"precondition_frequency": 1, "b1": 0.5, "b2": 0.9, "eps": 0.1, "precondition_1d": True}),
    ({"every": 2, "most": 3, "normalize": True},
     {"precondition_frequency": 2, "max_precond_dim": 3, "normalize_grads": True}),
    ({"every": 2, "normalize": True, "correct": False},
     {"precondition_frequency": 2, "normalize_grads": True, "correct_bias": False}),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), OPTIONS)
def test_it_is_the_formula(theirs, ours):
    check(gradtx.soap(0.01, **ours), soap(0.01, **theirs), shapes=SHAPES, steps=8)


def test_it_is_the_formula_of_complex_matrices():
    """QR and eigenvectors are defined up to a phase, which cancels."""
    options = {"shapes": {"tall": (4, 3)}, "complex_leaves": ("tall",), "steps": 8}
    check(gradtx.soap(0.01, precondition_frequency=3), soap(0.01, every=3), **options)


def test_it_is_the_formula_compiled_in_float32():
    """Of a side whose statistics have full rank from the first gradient on: eigenvectors of float32 numbers are known
    to 1e-7 times the ratio of the eigenvalues to their distance.
    """
    options = {"shapes": {"square": (3, 3), "bias": (3,)}, "steps": 6, "tolerance": 1e-3}
    check(gradtx.soap(0.01, precondition_frequency=2), soap(0.01, every=2), "float32", **options)


def test_it_is_in_eigenbasis_of_adam():
    """At eps 0 the bias of the second moment is a factor before or after."""
    by_hand = gradtx.chain(
        gradtx.in_eigenbasis(gradtx.scale_by_adam(0.9, 0.95, 0.0), 0.95, 2, first="nothing"),
        gradtx.scale_by_learning_rate(0.1),
    )
    tx = gradtx.soap(0.1, 0.9, 0.95, None, 0.0, 0.0, 2)
    check_same(tx, by_hand, shapes={"a": (3, 3), "b": (2, 2)}, tolerance=1e-12)


def test_stacked_layers_are_layers():
    numbers = gradtx.MuonDimensionNumbers(1, 2)
    tx, apart = (
        gradtx.soap(0.1, weight_dimension_numbers=numbers, precondition_frequency=2),
        gradtx.soap(0.1, precondition_frequency=2),
    )
    layers = jax.random.normal(jax.random.key(0), (3, 4, 5))
    grads = jax.random.normal(jax.random.key(1), (4, 3, 4, 5))

    def walk(tx, params, grads):
        state = tx.init(params)
        for g in grads:
            updates, state = tx.update(g, state, params)
            params = gradtx.apply_updates(params, updates)
        return params

    together = walk(tx, layers, list(grads))
    each = walk(apart, list(layers), [list(g) for g in grads])
    np.testing.assert_allclose(together, jnp.stack(each), rtol=1e-4, atol=1e-4)  # null spaces of 4 x 5, from one code


def test_schedules_are_read():
    rate = lambda count: 0.1 / (count + 1)
    tx, params = gradtx.soap(rate), jnp.ones((2, 3))
    state = tx.init(params)
    for t in range(3):
        updates, state = tx.update(jnp.ones((2, 3)), state, params)
        assert float(jnp.max(jnp.abs(updates))) > 0 if t else not jnp.any(updates)


@pytest.mark.parametrize("argument", [{"b1": 1.0}, {"shampoo_beta": 1.5}, {"precondition_frequency": 0}, {"eps": -1.0}])
def test_arguments_are_checked(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        gradtx.soap(0.1, **argument)

"""kl_shampoo and kl_soap: Lin et al. 2025 (arXiv 2509.03378), with the order of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check

from .test_soap import _each, turned, unfolded

SHAPES = {"tall": (4, 3), "square": (2, 2)}


def kl(lr, adam, b1=0.9, b2=0.98, eps=1e-8, decay=0.01, every=10, initial=0.1, least=1e-8):
    """L <- b L + (1-b)/n G R^-1 G^T and R likewise, R^-1 = Q diag(1/l) Q^T, l <- b l + (1-b) diag(Q^T (...) Q); QR
    without sorting. KL-Shampoo divides the mean by sqrt(l1 l2); KL-SOAP is Adam, without correction of biases.
    """

    def method(p):
        n = p.size
        factors = [np.zeros((d, d)) for d in p.shape]
        values = [np.full(d, initial) for d in p.shape]
        bases, m, v = None, np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal bases, m, v
            if bases is None:
                for k, d in enumerate(p.shape):
                    factors[k] = (1 - b2) * unfolded(g, k) @ unfolded(g, k).T / (n / d)
                bases = [np.linalg.eigh(f)[1] for f in factors]
                return np.zeros_like(p)
            to = [q.T for q in bases]
            above = [np.maximum(x, least) for x in values]
            if adam:
                m = b1 * m + (1 - b1) * turned(g, to)
                v = b2 * v + (1 - b2) * turned(g, to) ** 2
                u = turned(m / (np.sqrt(v) + eps), bases)
            else:
                m = b1 * m + (1 - b1) * g
                u = turned(turned(m, to) / (np.sqrt(np.multiply.outer(*above)) + eps), bases)
            u = -lr * u - lr * decay * (p - lr * u)
            left, right = ((q / x) @ q.T for q, x in zip(bases, above, strict=True))
            new = [g @ right @ g.T / g.shape[1], g.T @ left @ g / g.shape[0]]
            for k, f in enumerate(new):
                factors[k] = b2 * factors[k] + (1 - b2) * f
                values[k] = b2 * values[k] + (1 - b2) * np.diag(bases[k].T @ f @ bases[k])
            if (t - 1) % every == 0:
                m = turned(m, bases) if adam else m
                bases = [np.linalg.qr(f @ q)[0] for f, q in zip(factors, bases, strict=True)]
                m = turned(m, [q.T for q in bases]) if adam else m
            return u

        return step

    return lambda params: _each(method, params)


OPTIONS = [
    ({}, {}),
    ({"every": 2, "b1": 0.5, "b2": 0.7, "decay": 0.3},
     {"precondition_frequency": 2, "b1": 0.5, "b2": 0.7, "weight_decay": 0.3}),
]  # fmt: skip


@pytest.mark.parametrize(("theirs", "ours"), OPTIONS)
@pytest.mark.parametrize("method", ["kl_shampoo", "kl_soap"])
def test_it_is_the_formula(method, theirs, ours):
    tx = getattr(gradtx, method)(0.01, **ours)
    check(tx, kl(0.01, method == "kl_soap", **theirs), shapes=SHAPES, steps=8)


def test_eigenvalues_start_and_end_where_they_are_told():
    options = {"initial_eigenvalue": 2.0, "least_eigenvalue": 0.5, "precondition_frequency": 2}
    rule = kl(0.01, False, every=2, initial=2.0, least=0.5)
    check(gradtx.kl_shampoo(0.01, **options), rule, shapes=SHAPES, steps=6)


def test_it_whitens_gradients_of_kroneckers_form():
    """Of gradients A Z B with Z of independent entries the second moments are AA^T x B^T B up to a factor, which is
    what the factors come to, and the update of a gradient, without a mean, has the identity for second moments.
    """
    a = np.diag([3.0, 1.0, 0.5]) @ np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    b = np.diag([2.0, 1.0]) @ np.linalg.qr(np.random.default_rng(1).normal(size=(2, 2)))[0]
    tx = gradtx.scale_by_kl_shampoo(0.0, 0.998, 0.0, 1)
    grads = jnp.asarray(a @ np.random.default_rng(2).normal(size=(6000, 3, 2)) @ b, jnp.float32)

    @jax.jit
    def walk(grads):
        def body(state, g):
            u, state = tx.update(g, state)
            return state, u

        return jax.lax.scan(body, tx.init(grads[0]), grads)[1]

    late = np.asarray(walk(grads))[3000:].reshape(3000, 6)
    assert np.max(np.abs(late.T @ late / 3000 - np.eye(6))) < 0.15  # 3000 samples and a mean over some 500


def test_vectors_are_adams():
    tx, params = gradtx.kl_shampoo(0.1, adam_learning_rate=0.2), {"w": jnp.ones((2, 2)), "b": jnp.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["b"], -0.2, rtol=1e-6)
    assert not np.any(updates["w"])


def test_eigenvalues_are_of_the_link_around():
    with pytest.raises(ValueError, match="in_eigenbasis"):
        gradtx.scale_by_eigenvalues().update(jnp.ones((2, 2)), gradtx.chain().init(()), None)

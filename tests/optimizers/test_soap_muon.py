"""soap_muon: Vyas 2026; the polar factor of SOAP's direction."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check

from .test_soap import _each


def soap_muon(lr, b1=0.95, b2=0.9, beta=0.9, eps=1e-8, nesterov=True, every=1):
    def polar(x):
        """Newton's twelve steps: singular values that are not small become 1."""
        x = x / (np.linalg.norm(x) + eps)
        for _ in range(12):
            a = x @ x.T
            x = 2 * x - 1.5 * a @ x + 0.5 * a @ a @ x
        return x

    def method(p):
        rows, columns = p.shape
        left, right = np.zeros((rows, rows)), np.zeros((columns, columns))
        bases, m, v = None, np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal left, right, bases, m, v
            if bases is None:
                direction = g
            else:
                r = bases[0].T @ g @ bases[1]
                m, v = b1 * m + (1 - b1) * r, b2 * v + (1 - b2) * r**2
                ahead = b1 * m + (1 - b1) * r if nesterov else m
                direction = bases[0] @ (ahead / (np.sqrt(v) + eps)) @ bases[1].T
            left, right = beta * left + (1 - beta) * g @ g.T, beta * right + (1 - beta) * g.T @ g
            if bases is None:
                bases = [np.linalg.eigh(f)[1][:, ::-1] for f in (left, right)]
            elif (t - 1) % every == 0:
                old, bases = bases, []
                for k, (f, q) in enumerate(zip((left, right), old, strict=True)):
                    order = np.argsort(-np.diag(q.T @ f @ q), kind="stable")
                    v = np.take(v, order, axis=k)
                    bases.append(np.linalg.qr(f @ q[:, order])[0])
                m = bases[0].T @ old[0] @ m @ old[1].T @ bases[1]
            return -lr * np.sqrt(max(1, columns / rows)) * polar(direction)

        return step

    return lambda params: _each(method, params)


@pytest.mark.parametrize(
    ("theirs", "ours"), [({}, {}), ({"every": 3, "nesterov": False}, {"precondition_frequency": 3, "nesterov": False})]
)
def test_it_is_the_formula(theirs, ours):
    tx = gradtx.soap_muon(0.1, **ours)
    check(tx, soap_muon(0.1, **theirs), shapes={"tall": (4, 3), "square": (2, 2)}, steps=6)


def test_the_rest_is_adams_and_a_vector_is_no_matrix():
    tx, params = gradtx.soap_muon(0.1, adam_learning_rate=0.2), {"w": jnp.eye(2), "b": jnp.ones(3)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["b"], -0.2, rtol=1e-6)
    np.testing.assert_allclose(updates["w"], -0.1 * np.eye(2), atol=1e-5)
    with pytest.raises(ValueError, match="'b'"):
        gradtx.scale_by_soap_muon().init(params)

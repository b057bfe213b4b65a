"""eshampoo: Eschenhagen et al. 2025 (arXiv 2506.03595), with the filter of Shi et al. 2023."""

import numpy as np
import pytest

import gradtx
from tests.oracle import check, check_same

from .test_soap import _each, turned, unfolded


def eshampoo(lr, b1=0.9, b2=0.999, b3=None, eps=1e-8, decay=0.0, every=1, begin=None, correct=True):
    """F <- b2 F + (1 - b2) G G^T; at its time Q <- eigh(F), rising; nu in Q; the mean in the original space."""
    b3, begin = b1 if b3 is None else b3, every if begin is None else begin

    def method(p):
        factors = [np.zeros((d, d)) for d in p.shape]
        bases = [np.eye(d) for d in p.shape]
        m, v = np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal factors, bases, m, v
            factors = [b2 * f + (1 - b2) * unfolded(g, k) @ unfolded(g, k).T for k, f in enumerate(factors)]
            if t == begin or (t > begin and t % every == 0):
                bases = [np.linalg.eigh(f)[1] for f in factors]
            f = (b3 * m + (1 - b3) * g) / (1 - b3 * b1 ** (t - 1) if correct else 1)
            m = b1 * m + (1 - b1) * g
            back = [q.T for q in bases]
            v = b2 * v + (1 - b2) * turned(g, back) ** 2
            u = turned(turned(f, back) / (np.sqrt(v / (1 - b2**t if correct else 1)) + eps), bases)
            return -lr * (u + decay * p)

        return step

    return lambda params: _each(method, params)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"every": 2}, {"frequency": 2}),
        ({"b3": 0.5, "decay": 0.1, "begin": 3}, {"b3": 0.5, "weight_decay": 0.1, "start": 3}),
        (
            {"b3": 0.0, "b2": 0.9, "eps": 0.01, "correct": False},
            {"b3": 0.0, "b2": 0.9, "eps": 0.01, "bias_correction": False},
        ),
    ],
)
def test_it_is_the_formula(theirs, ours):
    shapes = {"square": (3, 3), "tall": (4, 3), "bias": (2,)}
    check(gradtx.eshampoo(0.01, **ours), eshampoo(0.01, **theirs), shapes=shapes, steps=6)


def test_the_filter_is_adam_at_b1():
    check_same(gradtx.scale_by_filtered_adam(0.8, 0.9), gradtx.scale_by_adam(0.8, 0.9))
    ahead = gradtx.scale_by_filtered_adam(0.8, 0.9, 0.8**2, bias_correction=False)
    check_same(ahead, gradtx.scale_by_adam(0.8, 0.9, nesterov=True, bias_correction=False))

"""grams: Cao, Li, Song 2024, Definition 4.1 (arXiv 2412.17107)."""

import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def grams(lr, b1=0.9, b2=0.999, eps=1e-6, decay=0.0):
    """u = m / c_1 / (sqrt(v / c_2) + eps); w = w - lr (sign(g) |u| + wd w)."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * np.abs(g) ** 2
            u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            if np.iscomplexobj(g):
                u = np.sign(g.real) * np.abs(u.real) + 1j * np.sign(g.imag) * np.abs(u.imag)
            else:
                u = np.sign(g) * np.abs(u)
            return -lr * (u + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"b1": 0.5, "b2": 0.7, "eps": 0.1}, {"b1": 0.5, "b2": 0.7, "eps": 0.1}),
        ({"weight_decay": 0.3}, {"decay": 0.3}),
    ],
)
def test_grams_has_adams_lengths_and_the_gradients_signs(options, theirs, precision):
    check(gradtx.grams(0.1, **options), grams(0.1, **theirs), precision, steps=14)


def test_of_complex_entries_each_part_has_its_sign():
    check(gradtx.grams(0.1), grams(0.1), complex_leaves=("dense/kernel",))


def test_without_momentum_grams_is_adam():
    check_same(gradtx.grams(0.1, 0.0), gradtx.adam(0.1, 0.0, eps=1e-6))

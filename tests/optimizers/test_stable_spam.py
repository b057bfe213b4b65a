"""stable_spam: Huang et al. 2025 (arXiv 2502.17055), AdaClip, AdaGN and MoRet."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, norm


def stable_spam(
    lr, b1=0.9, b2=0.999, eps=1e-8, decay=0.0, gammas=(0.7, 0.9, 0.999), period=1000, amsgrad=False, late=False
):
    """The three means of a leaf's norm, its square and its largest entry; then Adam, whose moments start over.

    `late`: as the authors' code resets.
    """
    g1, g2, g3 = gammas

    @leafwise
    def rule(p):
        a = s = top = 0.0
        m, v, most, n, k = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape), 0, 0

        def step(g, p, t):
            nonlocal a, s, top, m, v, most, n, k
            n, k = n + 1, n + 1 if late else t
            largest = np.max(np.abs(g))
            top = g3 * top + (1 - g3) * largest
            bound = top / (1 - g3**k)
            g = np.where(np.abs(g) > bound, g / largest * bound, g)
            a, s = g1 * a + (1 - g1) * norm(g), g2 * s + (1 - g2) * norm(g) ** 2
            g = g / norm(g) * (a / (1 - g1**k)) / (np.sqrt(s / (1 - g2**k)) + eps)
            if t % period == 0:
                n = 1
                if not late:
                    m, v, most = np.zeros_like(p), np.zeros(p.shape), np.zeros(p.shape)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * np.abs(g) ** 2
            most = np.maximum(most, v)
            u = m / (1 - b1**n) / (np.sqrt((most if amsgrad else v) / (1 - b2**n)) + eps)
            if late and t % period == 0:
                m, v = np.zeros_like(p), np.zeros(p.shape)
            return -lr * (u + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"weight_decay": 0.5, "eps": 0.1, "b1": 0.5}, {"decay": 0.5, "eps": 0.1, "b1": 0.5}),
        ({"gamma1": 0.0, "gamma2": 0.5, "gamma3": 0.5, "period": 4}, {"gammas": (0.0, 0.5, 0.5), "period": 4}),
        ({"amsgrad": True, "b2": 0.5, "period": 5}, {"amsgrad": True, "b2": 0.5, "period": 5}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(gradtx.stable_spam(0.01, **options), stable_spam(0.01, **theirs), precision)


def test_the_authors_code_resets_a_step_late():
    """Until the reset both are one; there, theirs is long before it is short."""
    tx = gradtx.stable_spam(0.01, period=6)
    check(tx, stable_spam(0.01, period=6, late=True), steps=5)
    with pytest.raises(AssertionError, match="off by"):
        check(tx, stable_spam(0.01, period=6, late=True), steps=6)


def test_without_a_period_nothing_is_reset():
    check_same(gradtx.stable_spam(0.01, period=None), gradtx.stable_spam(0.01))


def test_one_long_gradient_makes_no_long_update():
    tx = gradtx.stable_spam(1.0)
    p = jnp.ones(3)
    state = tx.init(p)
    for _ in range(20):
        _, state = tx.update(p, state, p)
    u, _ = tx.update(1e6 * p, state, p)
    assert np.max(np.abs(u)) < 3  # b1 = 0.9 after 20 equal gradients: 1; Adam's own would be the same
    after, _ = tx.update(p, state, p)
    np.testing.assert_allclose(after, -np.ones(3), rtol=1e-3)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`normalize_by_running_norm`: b1 must .*, got 1\.0"):
        gradtx.stable_spam(0.1, gamma1=1.0)
    with pytest.raises(ValueError, match=r"`reset_every`: period must .*, got 0"):
        gradtx.stable_spam(0.1, period=0)

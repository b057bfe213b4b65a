"""spam: Huang et al. 2025, Algorithm 1 (arXiv 2501.06842)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def spam(lr, b1=0.9, b2=0.999, eps=1e-6, decay=0.0, threshold=5000.0, after=20, period=500, warmup=150):
    """m = v = 0 where t mod period = 0; g^2 > threshold v is clipped; Adam, and a cosine after a reset."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            n = t % period
            if n == 0:
                m, v = np.zeros_like(p), np.zeros(p.shape)
            if n >= after:
                spikes = (np.abs(g) ** 2 > threshold * v) & (v > 0)
                g = np.where(spikes, g / np.abs(g) * np.sqrt(threshold * v), g)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * np.abs(g) ** 2
            w = 1 - 0.99 * (1 + np.cos(np.pi * n / (warmup + 1))) / 2 if t >= period and n < warmup else 1
            return -lr * (w * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"weight_decay": 0.5, "eps": 0.1}, {"decay": 0.5, "eps": 0.1}),
        (
            {"b2": 0.9, "threshold": 0.5, "clip_after": 2, "period": 5, "warmup_steps": 3},
            {"b2": 0.9, "threshold": 0.5, "after": 2, "period": 5, "warmup": 3},
        ),
        (
            {"b1": 0.5, "b2": 0.8, "threshold": 1.0, "clip_after": 0, "period": 4, "warmup_steps": 0},
            {"b1": 0.5, "b2": 0.8, "threshold": 1.0, "after": 0, "period": 4, "warmup": 0},
        ),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(gradtx.spam(0.01, **options), spam(0.01, **theirs), precision)


def test_complex_parameters():
    options = {"b2": 0.9, "threshold": 0.5, "clip_after": 1, "period": 5}
    rule = spam(0.01, b2=0.9, threshold=0.5, after=1, period=5)
    check(gradtx.spam(0.01, **options), rule, complex_leaves=("dense/kernel",))


def test_without_spikes_and_resets_it_is_adamw():
    adamw = gradtx.adamw(0.1, eps=1e-6, weight_decay=0.1)
    check_same(gradtx.spam(0.1, weight_decay=0.1, threshold=jnp.inf), adamw)


def test_its_clip_stands_before_other_methods_as_well():
    apart = gradtx.chain(gradtx.clip_spikes(0.5, 0.9), gradtx.scale_by_adam(b2=0.9), gradtx.scale(-0.1))
    together = gradtx.chain(gradtx.scale_by_spam(b2=0.9, threshold=0.5), gradtx.scale(-0.1))
    check_same(together, apart)


def test_a_spike_does_not_reach_the_moments():
    """pytorch_optimizer 3.9 clips a copy of it: there mu becomes 1000."""
    tx = gradtx.scale_by_spam()
    g = jnp.ones(1)
    state = tx.init(g)
    for _ in range(100):
        _, state = tx.update(g, state)
    _, state = tx.update(1e4 * g, state)
    bound = np.sqrt(5000 * (1 - 0.999**100))  # 22
    np.testing.assert_allclose(state.mu, 0.9 * (1 - 0.9**100) + 0.1 * bound, rtol=1e-4)  # 100 roundings


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"threshold must .*, got 0\.0"):
        gradtx.spam(0.1, threshold=0.0)
    with pytest.raises(ValueError, match=r"period must .*, got 0"):
        gradtx.spam(0.1, period=0)

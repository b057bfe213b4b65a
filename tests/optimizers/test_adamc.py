"""adamc: Defazio 2025 (arXiv 2506.02285)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def falling(t):
    return 0.1 / (1.0 + t)


def adamc(rate, peak, decay, decays=lambda p: True):
    """x = x - gamma_t m^ / (sqrt(v^) + eps) - gamma_t^2 / gamma_max wd x."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            now = rate(t - 1)
            m = 0.9 * m + 0.1 * g
            v = 0.999 * v + 0.001 * np.abs(g) ** 2
            direction = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            return -now * direction - (now**2 / peak * decay * p if decays(p) else 0)

        return step

    return rule


@both_precisions
def test_the_decay_falls_with_the_square_of_the_rate(precision):
    check(gradtx.adamc(falling, 0.1, weight_decay=0.3), adamc(falling, 0.1, 0.3), precision)


def test_only_what_the_mask_takes_decays():
    tx = gradtx.adamc(falling, 0.1, weight_decay=0.3, mask="kernel")
    check(tx, adamc(falling, 0.1, 0.3, lambda p: p.ndim == 2), complex_leaves=("dense/kernel",))


def test_at_a_constant_rate_it_is_adamw():
    check_same(gradtx.adamc(0.1, weight_decay=0.3), gradtx.adamw(0.1, weight_decay=0.3))


def test_at_a_tenth_of_the_peak_decay_is_a_hundredth():
    p = jnp.ones(3)
    tx = gradtx.adamc(0.01, 0.1, weight_decay=0.5)
    updates, _ = tx.update(jnp.zeros(3), tx.init(p), p)
    np.testing.assert_allclose(updates, np.full(3, -0.05 / 100), rtol=1e-3)  # the step is added to 1, and taken away


def test_a_schedule_needs_its_peak():
    with pytest.raises(ValueError, match="`adamc`: learning_rate is a schedule"):
        gradtx.adamc(falling)

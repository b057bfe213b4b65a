"""cautious_adamw and cautious_lion: Liang et al. 2024, Algorithm 2 and the defaults of C-Optim."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adamw(lr, b1=0.9, b2=0.999, eps=1e-6, decay=0.0, least=1e-3):
    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal m, v
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            mask = m * g > 0
            u = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
            return -lr * (u * mask / max(np.mean(mask), least) + decay * p)

        return step

    return rule


def lion(lr, b1=0.95, b2=0.98, decay=0.0):
    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            u = np.sign(b1 * m + (1 - b1) * g)
            m = b2 * m + (1 - b2) * g
            mask = u * g > 0
            return -lr * (u * mask * mask.size / (np.sum(mask) + 1) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("options", [{}, {"b1": 0.5, "b2": 0.7, "eps": 0.1}], ids=str)
def test_cautious_adamw(options, precision):
    check(gradtx.cautious_adamw(0.01, **options, weight_decay=0.3), adamw(0.01, **options, decay=0.3), precision)


@both_precisions
@pytest.mark.parametrize("options", [{}, {"b1": 0.5, "b2": 0.7}], ids=str)
def test_cautious_lion(options, precision):
    check(gradtx.cautious_lion(0.01, **options, weight_decay=0.3), lion(0.01, **options, decay=0.3), precision)


def test_with_factor_one_they_are_adamw_and_lion():
    check_same(
        gradtx.cautious_adamw(0.01, weight_decay=0.1, factor=1.0), gradtx.adamw(0.01, eps=1e-6, weight_decay=0.1)
    )
    plain = gradtx.lion(0.01, 0.95, 0.98, weight_decay=0.1)
    check_same(gradtx.cautious_lion(0.01, weight_decay=0.1, factor=1.0, rescale="mean"), plain)


def test_only_what_the_mask_takes_decays():
    both = [gradtx.cautious_adamw(0.01, weight_decay=d, mask="kernel") for d in (0.0, 0.3)]
    p = {"kernel": jnp.ones(2), "bias": jnp.ones(2)}
    without, with_decay = (jax.device_get(tx.update(p, tx.init(p), p)[0]) for tx in both)
    np.testing.assert_array_equal(without["bias"], with_decay["bias"])
    assert np.all(with_decay["kernel"] < without["kernel"])

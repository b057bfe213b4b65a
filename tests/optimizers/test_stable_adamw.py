"""stable_adamw: Wortsman et al. 2023, Algorithm 2 (arXiv 2304.13013)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, rms


def stable_adamw(lr, b1=0.9, b2=0.99, eps=1e-6, decay=1e-2, threshold=1.0):
    """With decays that rise, b^ = (b^t - b) / (b^t - 1): m = b1^ m + (1 - b1^) g, v = b2^ v + (1 - b2^) g^2;
    RMS = sqrt(mean(g^2 / max(v, eps^2))); eta = lr / max(1, RMS); theta = theta - eta (m / (sqrt(v) + eps) + wd theta).
    """

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            c1, c2 = ((b**t - b) / (b**t - 1) if b else 0.0 for b in (b1, b2))
            m = c1 * m + (1 - c1) * g
            v = c2 * v + (1 - c2) * np.abs(g) ** 2
            eta = lr / max(1.0, rms(g / np.sqrt(np.maximum(v, eps**2))) / threshold)
            return -eta * (m / (np.sqrt(v) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"b1": 0.5, "b2": 0.7, "eps": 0.1}, {"b1": 0.5, "b2": 0.7, "eps": 0.1}),
        ({"weight_decay": 0.5, "b2": 0.9}, {"decay": 0.5, "b2": 0.9}),
        ({"eps": 3.0}, {"eps": 3.0}),
        ({"threshold": 0.6}, {"threshold": 0.6}),
        ({"b1": 0.0, "b2": 0.0}, {"b1": 0.0, "b2": 0.0}),
    ],
)
def test_it_is_the_papers_algorithm(options, theirs, precision):
    check(gradtx.stable_adamw(0.1, **options), stable_adamw(0.1, **theirs), precision, steps=14)


def test_complex_entries_count_by_their_size():
    check(gradtx.stable_adamw(0.1, b2=0.8), stable_adamw(0.1, b2=0.8), complex_leaves=("dense/kernel",))


def test_without_a_threshold_it_is_adamw():
    tx = gradtx.stable_adamw(0.1, weight_decay=0.3, threshold=float("inf"))
    check_same(tx, gradtx.adamw(0.1, b2=0.99, eps=1e-6, weight_decay=0.3))


def test_a_spike_moves_no_further_than_the_steps_before():
    p = jnp.zeros(8)
    run = {}
    for name, tx in {"stable": gradtx.stable_adamw(1.0, 0.0), "adam": gradtx.adamw(1.0, 0.0, 0.99)}.items():
        state = tx.init(p)
        with jax.disable_jit():
            for _ in range(20):
                _, state = tx.update(jnp.ones(8), state, p)
            updates, _ = tx.update(jnp.full(8, 100.0), state, p)
        run[name] = float(jnp.max(jnp.abs(updates)))
    np.testing.assert_allclose(run["stable"], 1.0, rtol=1e-5)  # of eps and rounding
    assert run["adam"] > 4


def test_only_what_the_mask_takes_decays():
    p = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    tx = gradtx.stable_adamw(0.1, weight_decay=0.5, mask="kernel")
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    np.testing.assert_allclose(updates["kernel"], np.full((2, 2), -0.05), rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], np.zeros(2))


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.5), ("eps", -1e-8), ("threshold", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_stable_adam`.*{argument}.*{value}"):
        gradtx.scale_by_stable_adam(**{argument: value})

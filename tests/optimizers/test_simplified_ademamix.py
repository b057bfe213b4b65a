"""simplified_ademamix: Morwani et al. 2025, Algorithm 1 (arXiv 2502.02431)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def simplified(lr, b1=0.99, b2=0.95, alpha=0.0, eps=1e-8, eps_root=0.0, decay=0.0):
    """m = b1 m + g; n = b2 n + (1 - b2) g^2; theta = theta - lr ((alpha g + m) / (sqrt(n / (1 - b2^t)) + eps))."""

    @leafwise
    def rule(p):
        m, n = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, n
            a = alpha(t - 1) if callable(alpha) else alpha
            m, n = b1 * m + g, b2 * n + (1 - b2) * np.abs(g) ** 2
            return -lr * ((m + a * g) / (np.sqrt(n / (1 - b2**t) + eps_root) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"b1": 0.5, "b2": 0.8, "alpha": 2.0},
        {"b1": 0.0, "b2": 0.0},
        {"eps": 0.1, "eps_root": 0.5},
        {"alpha": lambda t: 0.25 * t},
    ],
)
def test_it_is_the_papers_formula(options, precision):
    check(gradtx.simplified_ademamix(0.01, **options), simplified(0.01, **options), precision)


def test_the_decay_bypasses_the_moments():
    check(gradtx.simplified_ademamix(0.01, weight_decay=0.5), simplified(0.01, decay=0.5))


def test_complex_parameters_have_real_squares():
    check(gradtx.simplified_ademamix(0.01), simplified(0.01), complex_leaves=("dense/kernel",))


def test_without_memory_of_the_sum_it_is_rmsprop():
    ours = gradtx.simplified_ademamix(0.01, b1=0.0, b2=0.9)
    check_same(ours, gradtx.adam(0.01, b1=0.0, b2=0.9))


def test_the_moments_are_wide_whatever_the_parameters():
    p = jnp.ones(3, jnp.float16)
    tx = gradtx.scale_by_simplified_ademamix()
    state = tx.init(p)
    updates, after = tx.update(jnp.full(3, 1e-4, jnp.float16), state, p)  # its square is 0 in float16
    np.testing.assert_allclose(updates, np.ones(3), rtol=1e-3)  # eps is 1e-4 of g
    assert after.m.dtype == after.n.dtype == jnp.float32


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("b2", 1.0), ("alpha", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_simplified_ademamix`.*{argument}.*{value}"):
        gradtx.simplified_ademamix(0.1, **{argument: value})

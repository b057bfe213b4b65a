"""asam: Kwon et al. 2021, Algorithm 1 (arXiv 2102.11600)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same

from .test_sam import slope, with_slope

RATE = 0.1


def rule(rho=0.5, eta=0.01, takes=lambda path: True):
    """e = rho T^2 g / |T g| with T = |w| + eta; w <- w - rate g(w + e). The first gradient is the one given."""

    def start(first):
        at = lambda p: {k: (x - 1) * (1 + x.ndim) + (x - 1) ** 3 for k, x in p.items()}

        def step(g, p, t):
            scale = {k: np.abs(x) + eta if takes(k) else np.ones_like(x) for k, x in p.items()}
            norm = np.sqrt(sum(np.sum((scale[k] * g[k]) ** 2) for k in p))
            radius = rho(t - 1) if callable(rho) else rho
            there = at({k: p[k] + radius * scale[k] ** 2 * g[k] / norm for k in p})
            return {k: -RATE * there[k] for k in p}

        return step

    return start


@both_precisions
@pytest.mark.parametrize("options", [{}, {"rho": 0.125, "eta": 0.25}], ids=str)
def test_the_step_uphill_is_in_proportion_to_the_parameters(options, precision):
    tx = gradtx.asam(gradtx.sgd(RATE), **options, opaque_mode=True)
    check(with_slope(tx, grad_fn=slope), rule(**options), precision)


def test_biases_may_be_left_out_as_in_the_authors_code():
    tx = gradtx.asam(gradtx.sgd(RATE), mask="kernel", opaque_mode=True)
    check(with_slope(tx, grad_fn=slope), rule(takes=lambda path: "kernel" in path))


def test_rho_follows_a_schedule():
    tx = gradtx.asam(gradtx.sgd(RATE), lambda t: 0.5 / (1 + t), opaque_mode=True)
    check(with_slope(tx, grad_fn=slope), rule(rho=lambda t: 0.5 / (1 + t)))


def test_it_is_sam_with_another_step_uphill(op_by_op):
    uphill = gradtx.chain(gradtx.normalize_adaptive(), gradtx.sgd(0.5))
    check_same(gradtx.asam(gradtx.sgd(RATE)), gradtx.sam(gradtx.sgd(RATE), uphill), tolerance=0)
    nothing = gradtx.asam(gradtx.sgd(RATE, 0.9), 0.0, opaque_mode=True)
    check_same(
        with_slope(nothing, grad_fn=slope), with_slope(gradtx.chain(AT_HOME, gradtx.sgd(RATE, 0.9)), grad_fn=slope)
    )


AT_HOME = gradtx.GradientTransformation(lambda p: None, lambda u, s, p=None, *, grad_fn: (grad_fn(p), s))


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`normalize_adaptive`: eta must"):
        gradtx.asam(gradtx.sgd(RATE), eta=-1)
    with pytest.raises(TypeError, match="`sam`: optimizer must be a gradient transformation"):
        gradtx.asam(RATE)
    assert gradtx.asam(gradtx.sgd(RATE)).init(jnp.ones(2)).cache.shape == (2,)

"""gsam: Zhuang et al. 2022, Algorithm 1 (arXiv 2203.08065)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same

from .test_sam import slope, with_slope

RATE = 0.1


def rule(rho=0.05, alpha=0.4, eps=1e-12, adaptive=False):
    """h = g(w + rho g / (|g| + eps)); w <- w - rate (h - alpha g_v), with g_v = g - cos |g| h / |h|."""

    def start(first):
        at = lambda p: {k: (x - 1) * (1 + x.ndim) + (x - 1) ** 3 for k, x in p.items()}
        size = lambda t: np.sqrt(sum(np.sum(x**2) for x in t.values()))

        def step(g, p, t):
            unit = {k: np.abs(x) if adaptive else np.ones_like(x) for k, x in p.items()}
            norm = size({k: unit[k] * g[k] for k in p}) + eps
            h = at({k: p[k] + rho * unit[k] ** 2 * g[k] / norm for k in p})
            cosine = sum(np.sum(g[k] * h[k]) for k in p) / (size(g) * size(h))
            vertical = {k: g[k] - cosine * size(g) * h[k] / size(h) for k in p}
            return {k: -RATE * (h[k] - alpha * vertical[k]) for k in p}

        return step

    return start


@both_precisions
@pytest.mark.parametrize("options", [{}, {"rho": 0.25, "alpha": 0.9}, {"adaptive": True}, {"eps": 0.5}], ids=str)
def test_the_gradient_uphill_loses_what_that_at_home_has_across_it(options, precision):
    check(with_slope(gradtx.gsam(gradtx.sgd(RATE), **options), grad_fn=slope), rule(**options), precision)


def test_without_alpha_it_is_sam():
    uphill = gradtx.chain(gradtx.normalize(), gradtx.sgd(0.05))
    sam = gradtx.sam(gradtx.adam(RATE), uphill, opaque_mode=True)
    gsam = gradtx.gsam(gradtx.adam(RATE), alpha=0.0, eps=0.0)
    check_same(with_slope(gsam, grad_fn=slope), with_slope(sam, grad_fn=slope), tolerance=0)


def test_with_alpha_one_the_step_is_along_both_alike():
    """h - (g - part h) has with h the product of h, and with g less: the loss at home falls no faster than uphill."""
    link = gradtx.minus_surrogate_gap(1.0)
    h, g = {"a": jnp.array([1.0, 2.0]), "b": jnp.array(0.5)}, {"a": jnp.array([0.5, 0.5]), "b": jnp.array(-1.0)}
    u, _ = link.update(h, link.init(h), h, grad_at_home=g)
    dot = lambda x, y: sum(jax.tree.leaves(jax.tree.map(jnp.vdot, x, y)))
    np.testing.assert_allclose(dot(u, h), dot(h, h), rtol=1e-6)
    zero = jax.tree.map(jnp.zeros_like, h)
    at_zero, _ = link.update(zero, link.init(h), h, grad_at_home=zero)
    jax.tree.map(np.testing.assert_array_equal, at_zero, zero)


def test_a_complex_gradient_is_one_of_pairs_of_reals():
    link = gradtx.minus_surrogate_gap(0.5)
    h, g = jnp.array([1 + 2j, -1j], jnp.complex64), jnp.array([0.5 - 1j, 2.0 + 0j], jnp.complex64)
    u, _ = link.update(h, link.init(h), grad_at_home=g)
    pairs = lambda x: jnp.concatenate([x.real, x.imag])
    of_pairs, _ = link.update(pairs(h), link.init(pairs(h)), grad_at_home=pairs(g))
    np.testing.assert_allclose(pairs(u), of_pairs, rtol=1e-6)


def test_products_are_of_whole_leaves_along_a_manual_axis():
    mesh = jax.make_mesh((4,), ("parts",), (jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    spec = {"split": jax.sharding.PartitionSpec("parts"), "whole": jax.sharding.PartitionSpec()}
    rng = np.random.default_rng(0)
    h, g = ({"split": jnp.asarray(rng.normal(size=8)), "whole": jnp.asarray(rng.normal(size=3))} for _ in range(2))
    step = lambda link: lambda h, g: link.update(h, link.init(h), grad_at_home=g)[0]
    mapped = jax.shard_map(
        step(gradtx.minus_surrogate_gap(axis="parts")), mesh=mesh, in_specs=(spec, spec), out_specs=spec
    )
    alone = step(gradtx.minus_surrogate_gap())(h, g)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), jax.jit(mapped)(h, g), alone)


def test_without_the_gradient_at_home_is_an_error_that_says_what_to_do():
    link = gradtx.minus_surrogate_gap()
    with pytest.raises(ValueError, match=r"`minus_surrogate_gap` reads the gradient at home: .*opaque_mode=True"):
        link.update(jnp.ones(2), link.init(jnp.ones(2)))
    with pytest.raises(TypeError, match="`gsam`: optimizer must be a gradient transformation"):
        gradtx.gsam(0.1)

"""orthogonal_gradients: Prieto et al. 2025 (arXiv 2501.04697), OrthoGrad."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, data, leafwise, nested


def across(rescale=True, takes=lambda p: True):
    """g - (w.g) / (w.w + 1e-30) w, scaled to |g|; of one entry, as it is."""

    @leafwise
    def rule(p):
        def step(g, p, t):
            if p.size < 2 or not takes(p):
                return -0.1 * g
            r = g - np.sum(np.conj(p) * g).real / (np.sum(np.abs(p) ** 2) + 1e-30) * p
            return -0.1 * r * (np.linalg.norm(g) / (np.linalg.norm(r) + 1e-30) if rescale else 1.0)

        return step

    return rule


def downhill(**options):
    return gradtx.chain(gradtx.orthogonal_gradients(**options), gradtx.scale_by_learning_rate(0.1))


@both_precisions
@pytest.mark.parametrize("rescale", [True, False])
def test_the_part_along_the_parameters_goes(rescale, precision):
    check(downhill(rescale=rescale), across(rescale), precision)


def test_complex_parameters_are_pairs_of_reals():
    check(downhill(), across(), complex_leaves=("dense/kernel",))


def test_the_mask_chooses_leaves():
    check(downhill(mask="kernel"), across(takes=lambda p: p.ndim == 2))


def test_what_is_left_stands_across_and_is_as_long():
    params, drift = data()
    p = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), nested(params)["dense"])
    g = jax.tree.map(lambda x: jnp.asarray(x[0], jnp.float32), nested(drift)["dense"])
    u, _ = gradtx.orthogonal_gradients().update(g, gradtx.EmptyState(), p)
    for name in g:
        assert abs(jnp.vdot(u[name], p[name])) < 1e-5  # some roundings of numbers about 1
        np.testing.assert_allclose(jnp.linalg.norm(u[name]), jnp.linalg.norm(g[name]), rtol=1e-6)


def test_a_gradient_across_already_passes():
    p, g = jnp.array([1.0, 0.0, 2.0]), jnp.array([0.0, 0.5, 0.0])
    u, _ = gradtx.orthogonal_gradients().update(g, gradtx.EmptyState(), p)
    np.testing.assert_array_equal(u, g)


@pytest.mark.parametrize("size", [0.0, 1.0, 1e-10])
def test_edges(size):
    """A gradient along the parameters leaves nothing but rounding, which is not scaled up."""
    p = jnp.asarray(np.random.default_rng(0).normal(size=(7, 5)), jnp.float32)
    tree = {"along": p, "none": jnp.zeros((0, 2)), "at zero": jnp.zeros(3), "one": jnp.array([2.0])}
    g = {**jax.tree.map(lambda x: size * (x + 0.0), tree), "at zero": jnp.full(3, size), "one": jnp.array([size])}
    u, _ = gradtx.orthogonal_gradients().update(g, gradtx.EmptyState(), tree)
    np.testing.assert_array_equal(u["along"], np.zeros((7, 5)))
    np.testing.assert_array_equal(u["at zero"], g["at zero"])
    np.testing.assert_array_equal(u["one"], g["one"])


def test_without_params_is_an_error_that_names_them():
    with pytest.raises(ValueError, match="`orthogonal_gradients` reads the parameters"):
        gradtx.orthogonal_gradients().update(jnp.ones(3), gradtx.EmptyState())

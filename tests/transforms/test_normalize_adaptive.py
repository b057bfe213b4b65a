"""normalize_adaptive: the uphill of ASAM, Kwon et al. 2021, Algorithm 1 (arXiv 2102.11600)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def rule(eta=0.01, eps=0.0, takes=lambda path: True):
    """T^2 g / (|T g| + eps) with T = |w| + eta, the norm over all leaves."""

    def start(params):
        def step(grads, params, t):
            scale = {k: np.abs(p) + eta if takes(k) else np.ones_like(p) for k, p in params.items()}
            norm = np.sqrt(sum(np.sum(np.abs(scale[k] * g) ** 2) for k, g in grads.items()))
            return {k: -0.1 * scale[k] ** 2 * g / (norm + eps) for k, g in grads.items()}

        return step

    return start


@both_precisions
@pytest.mark.parametrize("options", [{}, {"eta": 0.0}, {"eta": 0.5, "eps": 0.25}], ids=str)
def test_the_formula(options, precision):
    tx = gradtx.chain(gradtx.normalize_adaptive(**options), gradtx.sgd(0.1))
    check(tx, rule(**options), precision, complex_leaves=("dense/kernel",) if precision == "float64" else ())


def test_what_the_mask_leaves_out_is_measured_as_it_is():
    tx = gradtx.chain(gradtx.normalize_adaptive(mask="kernel"), gradtx.sgd(0.1))
    check(tx, rule(takes=lambda path: "kernel" in path))


def test_with_no_leaf_it_is_normalize():
    g = {"a": jnp.array([3.0, 0.0]), "b": jnp.array(-4.0)}
    found = gradtx.normalize_adaptive(mask=False).update(g, gradtx.normalize_adaptive().init(g), g)[0]
    jax.tree.map(np.testing.assert_array_equal, found, gradtx.normalize().update(g, gradtx.normalize().init(g))[0])


def test_it_does_not_see_the_scale_of_parameters_whose_gradient_has_the_inverse():
    rng = np.random.default_rng(0)
    p, g = ({k: jnp.asarray(rng.normal(size=4), jnp.float32) for k in "ab"} for _ in range(2))
    tx = gradtx.normalize_adaptive(0.0)
    u, _ = tx.update(g, tx.init(p), p)
    scaled, _ = tx.update({"a": g["a"] / 8, "b": g["b"] * 4}, tx.init(p), {"a": p["a"] * 8, "b": p["b"] / 4})
    np.testing.assert_allclose(scaled["a"], 8 * u["a"], rtol=1e-6)
    np.testing.assert_allclose(scaled["b"], u["b"] / 4, rtol=1e-6)


def test_zeros_stay_and_a_nan_spoils_its_leaf_alone():
    tx, p = gradtx.normalize_adaptive(), {"a": jnp.ones(2), "b": jnp.ones(2)}
    u, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    np.testing.assert_array_equal(u["a"], np.zeros(2))
    u, _ = tx.update({"a": jnp.array([jnp.nan, 1.0]), "b": jnp.ones(2)}, tx.init(p), p)
    np.testing.assert_allclose(u["b"], 1.01 / np.sqrt(2), rtol=1e-6)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`normalize_adaptive`: eta must .*, got -1"):
        gradtx.normalize_adaptive(-1)
    with pytest.raises(ValueError, match="`normalize_adaptive` reads the parameters"):
        gradtx.normalize_adaptive().update(jnp.ones(2), gradtx.normalize_adaptive().init(jnp.ones(2)))

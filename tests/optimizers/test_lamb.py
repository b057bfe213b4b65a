"""lamb: You et al. 2020, Algorithm 2 (arXiv 1904.00962), phi(x) = x."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise, norm


def lamb(lr, b1=0.9, b2=0.999, eps=1e-6, eps_root=0.0, decay=0.0, decays=lambda p: True, most=np.inf):
    """r = m^ / (sqrt(v^ + eps_root) + eps) + wd theta, theta -= lr |theta| / |r| r; ratio 1 where a norm is 0."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros(p.shape)

        def step(g, p, t):
            nonlocal m, v
            m = b1 * m + (1 - b1) * g
            v = b2 * v + (1 - b2) * abs(g) ** 2
            r = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t) + eps_root) + eps)
            r = r + decay * p if decays(p) else r
            ratio = min(norm(p) / norm(r) if norm(p) > 0 and norm(r) > 0 else 1.0, most)
            return -lr * ratio * r

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options",
    [{}, {"decay": 0.3}, {"b1": 0.5, "b2": 0.9, "eps": 0.1}, {"eps": 0.0, "eps_root": 0.1, "decay": 0.1}],
)
def test_adams_direction_and_the_decay_are_scaled_to_the_parameters_norm(options, precision):
    tx = gradtx.lamb(0.02, **{"weight_decay" if key == "decay" else key: value for key, value in options.items()})
    check(tx, lamb(0.02, **options), precision)


def test_the_mask_chooses_what_decays_and_not_what_is_rescaled():
    tx = gradtx.lamb(0.02, weight_decay=0.3, mask="kernel")
    check(tx, lamb(0.02, decay=0.3, decays=lambda p: p.ndim == 2))


@both_precisions
@pytest.mark.parametrize("most", [0.1, 1.0, 100.0])
def test_the_ratio_is_bounded(most, precision):
    check(gradtx.lamb(0.02, weight_decay=0.3, max_ratio=most), lamb(0.02, decay=0.3, most=most), precision)


def test_a_leaf_that_is_not_scaled_takes_adamws_step():
    tx = gradtx.lamb(0.02, weight_decay=0.3, trust_ratio_mask=lambda params: False)
    check_same(tx, gradtx.adamw(0.02, eps=1e-6, weight_decay=0.3))


def test_a_complex_leaf_has_one_norm():
    check(gradtx.lamb(0.02, weight_decay=0.3), lamb(0.02, decay=0.3), complex_leaves=("dense/kernel",))


def test_the_update_is_adams_direction_at_the_parameters_length():
    rng = np.random.default_rng(5)
    params = {"a": jnp.asarray(rng.normal(size=(5, 3)), jnp.float32), "b": jnp.asarray(rng.normal(size=4), jnp.float32)}
    big, plain = gradtx.lamb(0.1), gradtx.adam(0.1, eps=1e-6)
    state, other = big.init(params), plain.init(params)
    for _ in range(10):
        grads = {k: jnp.asarray(rng.normal(size=p.shape), jnp.float32) for k, p in params.items()}
        updates, state = big.update(grads, state, params)
        adam, other = plain.update(grads, other, params)
        for key, p in params.items():
            u, v = np.asarray(updates[key]), np.asarray(adam[key])
            np.testing.assert_allclose(norm(u), 0.1 * norm(np.asarray(p)), rtol=1e-5)
            np.testing.assert_allclose(u / norm(u), v / norm(v), rtol=1e-4, atol=1e-6)  # float32 norms


def test_a_leaf_of_zeros_takes_adams_step():
    p = jnp.zeros(3)
    g = jnp.array([1.0, -2.0, 4.0])
    tx, plain = gradtx.lamb(0.1), gradtx.adam(0.1, eps=1e-6)
    u, _ = tx.update(g, tx.init(p), p)
    v, _ = plain.update(g, plain.init(p), p)
    np.testing.assert_allclose(u, v, rtol=1e-6)


def test_lamb_without_params_is_an_error_that_names_them():
    tx = gradtx.lamb(0.1)
    g = jnp.ones(3)
    with pytest.raises(ValueError, match=r"`.*`.*params"):
        tx.update(g, tx.init(g))

"""adan: Xie, Zhou, Li, Lin, Yan 2022, Algorithm 1, whose betas are 1 minus ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def adan(lr, beta1=0.02, beta2=0.08, beta3=0.01, eps=1e-8, eps_root=1e-8, decay=0.0, weight=None):
    """With the paper's betas; the weight of a difference is its 1 - beta2."""
    weight = 1 - beta2 if weight is None else weight

    @leafwise
    def rule(p):
        m, v, n, last = np.zeros_like(p), np.zeros_like(p), np.zeros(p.shape), None

        def step(g, p, t):
            nonlocal m, v, n, last
            d = np.zeros_like(g) if last is None else g - last
            m = (1 - beta1) * m + beta1 * g
            v = (1 - beta2) * v + beta2 * d
            n = (1 - beta3) * n + beta3 * np.abs(g + weight * d) ** 2
            last = g.copy()
            m_hat, v_hat, n_hat = m / (1 - (1 - beta1) ** t), v / (1 - (1 - beta2) ** t), n / (1 - (1 - beta3) ** t)
            return -lr * ((m_hat + weight * v_hat) / (np.sqrt(n_hat + eps_root) + eps) + decay * p)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("ours", "papers"),
    [({}, {}), ({"b1": 0.5, "b3": 0.9}, {"beta1": 0.5, "beta3": 0.1}), ({"eps": 0.1}, {"eps": 0.1})],
)
def test_with_the_papers_weight_it_is_the_papers(ours, papers, precision):
    check(gradtx.adan(0.02, **ours, difference_weight=0.92), adan(0.02, **papers), precision)


@both_precisions
def test_without_one_the_weight_is_optaxs(precision):
    check(gradtx.adan(0.02), adan(0.02, weight=0.08), precision)
    check(gradtx.adan(0.02, b2=0.5), adan(0.02, beta2=0.5), precision)  # there both are the same


@both_precisions
def test_weight_decay_is_decoupled(precision):
    check(gradtx.adan(0.02, weight_decay=0.3, difference_weight=0.92), adan(0.02, decay=0.3), precision)


def test_the_modulus_of_a_complex_gradient_is_shared_by_its_parts():
    tx = gradtx.adan(0.02, weight_decay=0.3, difference_weight=0.92)
    check(tx, adan(0.02, decay=0.3), complex_leaves=("dense/kernel", "scale"))


def test_where_the_gradient_never_changes_it_is_adam():
    """With b3 for Adam's b2; gradients that depend on nothing and are one number all along."""
    g = jnp.array([1.0, -2.0])
    runs = []
    for tx in (gradtx.scale_by_adan(b1=0.9, b3=0.99), gradtx.scale_by_adam(0.9, 0.99)):
        updates, state = tx.update(g, tx.init(g))
        for _ in range(9):
            updates, state = tx.update(g, state)
        runs.append(updates)
    np.testing.assert_allclose(*runs, rtol=1e-6)


def test_without_a_weight_differences_do_nothing():
    check_same(gradtx.adan(0.02, b2=0.5, difference_weight=0.0), gradtx.adan(0.02, difference_weight=0.0))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_state_of_narrow_parameters_stays_wide_with_any_gradient(dtype):
    p, tx = jnp.ones(3, dtype), gradtx.adan(0.1)
    for g in (p, jnp.ones(3)):
        state, _ = jax.lax.scan(lambda state, _, g=g: (tx.update(g, state, p)[1], None), tx.init(p), length=2)
        assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32", "int32"}


def test_the_state_does_not_hold_the_callers_gradient():
    """So that a step may donate its state and leave the gradient."""
    g, tx = jnp.ones(3), gradtx.scale_by_adan()
    _, state = tx.update(g, tx.init(g))
    assert state.g.unsafe_buffer_pointer() != g.unsafe_buffer_pointer()


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", 1.0), ("b3", -0.1), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_adan`.*{argument}.*{value}"):
        gradtx.adan(0.1, **{argument: value})

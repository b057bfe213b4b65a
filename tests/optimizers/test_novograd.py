"""novograd: Ginsburg et al. 2019, Algorithm 1, with momentum as a sum and nu started by the first norm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same, leafwise


def novograd(lr, b1=0.9, b2=0.25, eps=1e-6, eps_root=0.0, decay=0.0):
    """v_1 = |g|^2, v_t = b2 v + (1 - b2) |g|^2; m = b1 m + (g / (sqrt(v) + eps) + d theta); theta -= lr m."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), 0.0

        def step(g, p, t):
            nonlocal m, v
            square = np.sum(np.abs(g) ** 2)
            v = square if t == 1 else b2 * v + (1 - b2) * square
            m = b1 * m + g / (np.sqrt(v + eps_root) + eps) + decay * p
            return -lr * m

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options", [{}, {"b1": 0.5, "b2": 0.9}, {"b1": 0.0, "b2": 0.0}, {"eps": 0.1, "eps_root": 0.1}, {"eps": 0.0}]
)
def test_novograd_sums_gradients_over_their_leafs_running_norm(options, precision):
    check(gradtx.novograd(0.02, **options), novograd(0.02, **options), precision)


@both_precisions
def test_weight_decay_goes_into_the_momentum(precision):
    check(gradtx.novograd(0.02, weight_decay=0.3), novograd(0.02, decay=0.3), precision)


def test_weight_decay_may_be_a_schedule():
    check_same(gradtx.novograd(0.02, weight_decay=lambda t: 0.3), gradtx.novograd(0.02, weight_decay=0.3))


def test_complex_parameters_move_as_the_pairs_of_reals_that_they_are():
    check(gradtx.novograd(0.02, weight_decay=0.3), novograd(0.02, decay=0.3), complex_leaves=("dense/kernel", "scale"))


def test_the_first_step_of_every_leaf_has_the_length_of_the_rate():
    g = {"a": jnp.array([3.0, 4.0]) * 1e3, "b": jnp.ones((2, 3)) * 1e-3}
    tx = gradtx.novograd(0.1, eps=0.0)
    updates, _ = tx.update(g, tx.init(g), g)
    for u in jax.tree.leaves(updates):
        np.testing.assert_allclose(jnp.linalg.norm(u), 0.1, rtol=1e-6)


def test_the_second_moment_is_one_number_per_leaf():
    params = {"a": jnp.ones((4, 3)), "b": jnp.ones(2, "bfloat16"), "c": jnp.ones(2, "complex64")}
    state = gradtx.scale_by_novograd(mu_dtype="bfloat16").init(params)
    assert all((x.shape, x.dtype) == ((), jnp.float32) for x in jax.tree.leaves(state.nu))
    assert state.mu["a"].dtype == jnp.bfloat16


def test_narrow_parameters_take_wide_gradients():
    p, g = jnp.ones(3, "bfloat16"), jnp.ones(3)
    tx = gradtx.novograd(0.1)
    jax.lax.scan(lambda state, _: (tx.update(g, state, p)[1], None), tx.init(p), length=3)


def test_without_params_it_says_that_it_reads_them():
    tx = gradtx.novograd(0.1)
    with pytest.raises(ValueError, match=r"`scale_by_novograd`.*params"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("b2", -0.1), ("eps", -1.0), ("weight_decay", -0.1)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_novograd`.*{argument}.*{value}"):
        gradtx.novograd(0.1, **{argument: value})

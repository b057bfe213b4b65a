"""dowg: Khaled, Mishchenko, Jin 2023, Algorithm 1 (arXiv 2305.16284)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def dowg(r2=1e-4, eps=1e-4, decay=0.0, rate=1.0):
    """r_t = max(r, |x - x0|); v_t = v + r^2 |g|^2; eta = r^2 / (sqrt(v) + eps); |.| over all leaves."""

    def rule(first):
        best, v = r2, 0.0

        def step(grads, params, t):
            nonlocal best, v
            grads = {k: g + decay * params[k] for k, g in grads.items()}
            best = max(best, sum(np.sum(np.abs(params[k] - p) ** 2) for k, p in first.items()))
            v += best * sum(np.sum(np.abs(g) ** 2) for g in grads.values())
            return {k: -rate * best / (np.sqrt(v) + eps) * g for k, g in grads.items()}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"init_estim_sq_dist": 0.5}, {"r2": 0.5}),
        ({"eps": 0.25}, {"eps": 0.25, "r2": 0.25}),
        ({"init_estim_sq_dist": 0.01, "eps": 0.0, "weight_decay": 0.5}, {"r2": 0.01, "eps": 0.0, "decay": 0.5}),
        ({"learning_rate": 0.5}, {"rate": 0.5}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: the distance is a difference of parameters near 1, and small at first
    check(gradtx.dowg(**options), dowg(**theirs), precision, tolerance=1e-4 if precision == "float32" else None)


def test_complex_parameters_are_pairs_of_reals_to_the_distance():
    check(gradtx.dowg(init_estim_sq_dist=0.1), dowg(0.1), complex_leaves=("dense/kernel",))


def test_the_scalars_are_wide_whatever_the_parameters():
    p, tx = jnp.ones(2, jnp.bfloat16), gradtx.scale_by_dowg(1.0)
    state = tx.init(p)
    step = lambda state, _: (tx.update(jnp.ones(2, jnp.bfloat16), state, p)[1], None)
    last, _ = jax.lax.scan(step, state, length=3000)
    assert state.estim_sq_dist.dtype == last.weighted_sq_norm_grads.dtype == jnp.float32
    assert last.weighted_sq_norm_grads == 6000  # it would stop at 512 in bfloat16, where 512 + 2 is 512


def test_first_parameters_are_a_copy_and_no_buffer_is_there_twice():
    p = jnp.ones(3)
    tx = gradtx.scale_by_dowg()
    state = tx.init(p)
    assert len({x.unsafe_buffer_pointer() for x in (p, *state)}) == 4
    jax.jit(lambda p, state: (p, tx.update(p, state, p)[1]), donate_argnums=(0, 1))(p, state)


@pytest.mark.parametrize("options", [{}, {"eps": 0.0}, {"init_estim_sq_dist": 0.1, "eps": 0.0}])
def test_zero_gradients_move_nothing(options):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.dowg(**options)
    zero, state = jax.tree.map(jnp.zeros_like, p), tx.init(p)
    for _ in range(2):
        updates, state = tx.update(zero, state, p)
        np.testing.assert_array_equal(updates["w"], np.zeros(3))


def test_a_parameter_without_gradient_counts_in_no_norm():
    p = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = gradtx.scale_by_dowg()
    updates, state = tx.update({"a": jnp.ones(2), "b": None}, tx.init(p), p)
    alone, of_one = tx.update({"a": jnp.ones(2)}, tx.init({"a": p["a"]}), {"a": p["a"]})
    np.testing.assert_array_equal(updates["a"], alone["a"])
    assert state.weighted_sq_norm_grads == of_one.weighted_sq_norm_grads


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_dowg`: init_estim_sq_dist must be positive, got 0\.0"):
        gradtx.dowg(init_estim_sq_dist=0.0)
    with pytest.raises(ValueError, match="`scale_by_dowg` reads the parameters"):
        gradtx.dowg().update(jnp.ones(2), gradtx.dowg().init(jnp.ones(2)))

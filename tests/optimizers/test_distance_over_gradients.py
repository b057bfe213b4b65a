"""scale_by_distance_over_gradients: Ivgi, Hinder, Carmon 2023, L-DoG: equation 3 for each layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm


def ldog(reps_rel=1e-6, eps=1e-8, scale=1.0):
    """r_t = max(r_eps, max_i |x_i - x_0|), eta_t = r_t / sqrt(sum_i |g_i|^2 + eps), for one layer."""

    @leafwise
    def rule(p):
        start, r, total = p.copy(), reps_rel * (1 + norm(p)), 0.0

        def step(g, p, t):
            nonlocal r, total
            r, total = max(r, norm(p - start)), total + norm(g) ** 2
            return -scale * r / np.sqrt(total + eps) * g

        return step

    return rule


def descent(**options):
    return gradtx.chain(gradtx.scale_by_distance_over_gradients(**options), gradtx.scale_by_learning_rate(1.0))


@both_precisions
@pytest.mark.parametrize("options", [{"reps_rel": 0.1}, {"reps_rel": 0.1, "eps": 0.5}, {"reps_rel": 1e-2}])
def test_each_leafs_rate_is_its_distance_over_its_gradients(options, precision):
    # float32: the distance is a difference of parameters near 1, some 1e-2 at first, and the rate is made of it.
    check(descent(**options), ldog(**options), precision, tolerance=1e-4 if precision == "float32" else None)


@both_precisions
def test_with_the_papers_start(precision):
    # float32: the first distances are 1e-6, as small as the rounding of the parameters that they are taken of
    check(descent(), ldog(), precision, steps=10, tolerance=0.1 if precision == "float32" else None)


def test_the_scale_is_a_factor():
    tx = gradtx.chain(gradtx.scale_by_distance_over_gradients(0.1, global_scale=-0.5))
    check(tx, ldog(0.1, scale=0.5))


def test_a_complex_parameter_moves_as_the_pair_of_reals_that_it_is():
    check(descent(reps_rel=0.1), ldog(0.1), complex_leaves=("dense/kernel", "scale"))


def test_it_finds_its_rate_whatever_the_scale_of_the_problem():
    for scale in (1e-2, 1e2):
        tx, p = descent(reps_rel=1e-4), jnp.array([1.0, -2.0])

        def step(carry, _, tx=tx, scale=scale):
            p, state = carry
            updates, state = tx.update(scale * (p - jnp.array([3.0, 4.0])), state, p)
            return (gradtx.apply_updates(p, updates), state), None

        (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), None, length=3000)
        np.testing.assert_allclose(p, [3.0, 4.0], atol=0.05)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_of_narrow_parameters_the_sums_are_float32(dtype):
    """A float16 sum of squares of 300s overflows, a bfloat16 one stalls at 256 times its increment."""
    p = jnp.ones(2, dtype)
    tx = gradtx.scale_by_distance_over_gradients()
    state = tx.init(p)
    for _ in range(300):
        _, state = tx.update(300 * p, state, p)
    assert {x.dtype.name for x in jax.tree.leaves(state)} == {"float32"}
    np.testing.assert_allclose(state.grad_sum_of_squares, 300 * 2 * 9e4, rtol=1e-3)  # 300 additions


def test_the_start_is_a_copy_and_scalars_keep_their_shape():
    p = {"w": jnp.ones((2, 3)), "s": jnp.ones(())}
    tx = gradtx.scale_by_distance_over_gradients()
    state = tx.init(p)
    assert {x.unsafe_buffer_pointer() for x in jax.tree.leaves(p)}.isdisjoint(
        x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)
    )
    updates, _ = tx.update(p, state, p)
    assert jax.tree.map(jnp.shape, updates) == {"w": (2, 3), "s": ()}


def test_the_start_is_stored_as_told():
    tx = gradtx.scale_by_distance_over_gradients(param_dtype="bfloat16")
    assert tx.init(jnp.ones(2)).init_params.dtype == jnp.bfloat16
    assert gradtx.scale_by_distance_over_gradients().init(jnp.ones(2, "bfloat16")).init_params.dtype == jnp.float32


def test_a_nan_does_not_end_the_run():
    p, tx = jnp.ones(2), gradtx.scale_by_distance_over_gradients()
    _, state = tx.update(jnp.array([jnp.nan, 1.0]), tx.init(p), p)
    updates, _ = tx.update(p, state, p)
    assert np.all(np.isfinite(updates))


def test_without_params_it_says_that_it_reads_them():
    tx = gradtx.scale_by_distance_over_gradients()
    with pytest.raises(ValueError, match=r"`scale_by_distance_over_gradients` reads the parameters"):
        tx.update(jnp.ones(3), tx.init(jnp.ones(3)))

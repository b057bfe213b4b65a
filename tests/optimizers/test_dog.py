"""dog: Ivgi, Hinder, Carmon 2023 (arXiv 2302.12022)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def dog(tag="heuristic", value=1e-6, eps=1e-8, decay=0.0, rate=1.0):
    """eta_t = max_{k <= t} |x_k - x_0| / sqrt(sum_{k <= t} |g_k|^2 + eps); |.| over all leaves."""

    def rule(first):
        size = np.sqrt(sum(np.sum(np.abs(p) ** 2) for p in first.values()))
        r, total = {"heuristic": value * (1 + size), "distance": value, "learning_rate": 0.0}[tag], 0.0

        def step(grads, params, t):
            nonlocal r, total
            grads = {k: g + decay * params[k] for k, g in grads.items()}
            r = max(r, np.sqrt(sum(np.sum(np.abs(params[k] - p) ** 2) for k, p in first.items())))
            total += sum(np.sum(np.abs(g) ** 2) for g in grads.values())
            eta = value if tag == "learning_rate" and t == 1 else r / np.sqrt(total + eps)
            return {k: -rate * eta * g for k, g in grads.items()}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"init_step": ("distance", 0.1)}, {"tag": "distance", "value": 0.1}),
        ({"init_step": ("learning_rate", 0.1), "eps": 0.5}, {"tag": "learning_rate", "value": 0.1, "eps": 0.5}),
        ({"init_step": ("heuristic", 0.01), "weight_decay": 0.5}, {"value": 0.01, "decay": 0.5}),
        ({"learning_rate": 0.5, "eps": 0.0}, {"rate": 0.5, "eps": 0.0}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: parameters near 1 move by 1e-6 at first; of the distance, which is their difference, a tenth is lost
    tolerance = None if precision == "float64" else 1e-5 if "init_step" in options else 0.2
    check(gradtx.dog(**options), dog(**theirs), precision, tolerance=tolerance)


def test_complex_parameters_are_pairs_of_reals_to_the_distance():
    check(gradtx.dog(init_step=("distance", 0.1)), dog("distance", 0.1), complex_leaves=("dense/kernel",))


def test_it_reaches_a_minimum_of_any_scale_without_a_rate():
    target = jnp.array([300.0, -400.0])
    tx, p = gradtx.dog(), jnp.zeros(2)

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p - target, state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=500)
    np.testing.assert_allclose(p, target, rtol=1e-2)  # the rate falls too slowly for more


def test_the_scalars_are_wide_whatever_the_parameters():
    p, tx = jnp.ones(2, jnp.bfloat16), gradtx.scale_by_dog(("distance", 1e-3))
    state = tx.init(p)
    step = lambda state, _: (tx.update(jnp.ones(2, jnp.bfloat16), state, p)[1], None)
    last, _ = jax.lax.scan(step, state, length=3000)
    assert state.max_dist.dtype == last.sum_sq_norm_grads.dtype == jnp.float32
    assert last.sum_sq_norm_grads == 6000  # it would stop at 512 in bfloat16, where 512 + 2 is 512


def test_first_parameters_are_a_copy_and_no_buffer_is_there_twice():
    p = jnp.ones(3)
    tx = gradtx.scale_by_dog(("heuristic", 1e-6))
    state = tx.init(p)
    assert len({x.unsafe_buffer_pointer() for x in (p, *state)}) == 5
    jax.jit(lambda p, state: (p, tx.update(p, state, p)[1]), donate_argnums=(0, 1))(p, state)


def test_shapes_count_as_zeros_in_the_heuristic():
    state = gradtx.scale_by_dog(("heuristic", 1e-6)).init(jax.ShapeDtypeStruct((3,), jnp.bfloat16))
    assert state.max_dist == np.float32(1e-6) and state.init_params.dtype == jnp.bfloat16


@pytest.mark.parametrize("tag", ["distance", "heuristic", "learning_rate"])
def test_zero_gradients_move_nothing(tag):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.dog(init_step=(tag, 0.1), eps=0.0)
    zero, state = jax.tree.map(jnp.zeros_like, p), tx.init(p)
    for _ in range(2):
        updates, state = tx.update(zero, state, p)
        np.testing.assert_array_equal(updates["w"], np.zeros(3))


def test_a_leaf_with_nan_spoils_itself_alone():
    p = {"a": jnp.ones(2), "b": jnp.ones(2)}
    tx = gradtx.scale_by_dog(("distance", 0.1))
    updates, state = tx.update({"a": jnp.ones(2), "b": jnp.full(2, jnp.nan)}, tx.init(p), p)
    alone, of_one = tx.update({"a": jnp.ones(2)}, tx.init({"a": p["a"]}), {"a": p["a"]})
    np.testing.assert_array_equal(updates["a"], alone["a"])
    assert state.sum_sq_norm_grads == of_one.sum_sq_norm_grads


def test_its_rate_is_heard():
    tx = gradtx.monitor(gradtx.dog(0.5, ("learning_rate", 0.25)))
    p = jnp.ones(2)
    _, state = tx.update(p, tx.init(p), p)
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], 0.125)


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_dog`: init_step must be positive, got 0\.0"):
        gradtx.dog(init_step=("distance", 0.0))
    with pytest.raises(ValueError, match=r"`scale_by_dog`: tag must be one of .*'heuristic'.*'nowhere'"):
        gradtx.dog(init_step=("nowhere", 0.1))
    with pytest.raises(TypeError, match=r"`scale_by_dog`: init_step must be a pair such as .*got 0\.1"):
        gradtx.scale_by_dog(0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="`scale_by_dog` reads the parameters"):
        gradtx.dog().update(jnp.ones(2), gradtx.dog().init(jnp.ones(2)))

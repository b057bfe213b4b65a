"""Decay of where a step has led."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx


def test_it_shrinks_what_the_step_led_to_from_an_update_on():
    tx = gradtx.decay_after_step(0.5, 0.2, start=2)
    params, steps = {"w": jnp.array([2.0, -4.0])}, {"w": jnp.array([1.0, 1.0])}
    state = tx.init(params)
    first, state = tx.update(steps, state, params)
    second, _ = tx.update(steps, state, params)
    np.testing.assert_array_equal(first["w"], steps["w"])
    np.testing.assert_allclose(params["w"] + second["w"], 0.9 * (params["w"] + steps["w"]), rtol=1e-6)


def test_a_mask_names_leaves_and_params_are_needed():
    tx, params = gradtx.decay_after_step(0.5, 0.2, "w"), {"w": jnp.ones(2), "b": jnp.ones(2)}
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["w"], 0.8, rtol=1e-6)
    np.testing.assert_array_equal(updates["b"], 1.0)
    with pytest.raises(ValueError, match="params"):
        tx.update(params, tx.init(params))

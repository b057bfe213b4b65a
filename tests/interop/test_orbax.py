"""A checkpoint outlives a change of the recipe."""

import chex
import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

import gradtx

PARAMS = {"w": jnp.ones((2, 3)), "b": jnp.ones(3, jnp.bfloat16)}


def test_adamw_is_restored_into_a_scheduled_and_clipped_adamw(tmp_path):
    plain = gradtx.adamw(1e-3)
    _, state = plain.update(PARAMS, plain.init(PARAMS), PARAMS)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
        checkpointer.wait_until_finished()
        recipe = gradtx.adamw(gradtx.linear_schedule(0.0, 1e-3, 100), mask="w")
        changed = gradtx.chain(gradtx.clip_by_global_norm(1.0), recipe)
        restored = checkpointer.restore(tmp_path / "state", jax.eval_shape(changed.init, PARAMS))
    chex.assert_trees_all_equal(restored, state)
    _, after = changed.update(PARAMS, restored, PARAMS)
    assert after["count"] == 2 and after["scale_by_adam"].count == 2

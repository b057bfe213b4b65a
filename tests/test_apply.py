"""Adding updates, and copies of parameters that follow."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

NEW = {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}
OLD = {"w": jnp.ones((2, 3)), "b": jnp.zeros(3)}


def test_the_average_is_optaxs():
    ours, theirs = (lib.incremental_update(NEW, OLD, 0.1) for lib in (gradtx, optax))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def test_the_averages_dtype_is_the_old_ones_and_none_stays():
    new = {"w": jnp.ones(2, jnp.bfloat16), "n": None, "steps": jnp.int32(7)}
    old = {"w": jnp.zeros(2), "n": None, "steps": jnp.int32(3)}
    average = gradtx.incremental_update(new, old, 0.25)
    assert average["w"].dtype == jnp.float32 and average["w"].tolist() == [0.25] * 2
    assert average["n"] is None and average["steps"] == 7
    with jax.numpy_dtype_promotion("strict"):
        assert gradtx.incremental_update(old["w"], new["w"], jnp.float32(0.5)).dtype == jnp.bfloat16


@pytest.mark.parametrize("steps", [0, 1, 3, 6])
def test_a_periodic_copy_is_optaxs(steps):
    ours = jax.jit(gradtx.periodic_update)(NEW, OLD, steps, 3)
    jax.tree.map(np.testing.assert_array_equal, ours, optax.periodic_update(NEW, OLD, steps, 3))


def test_a_periodic_copy_keeps_its_dtype():
    copy = gradtx.periodic_update([jnp.ones(2), None], [jnp.zeros(2, jnp.bfloat16), None], 4, 2)
    assert copy[0].dtype == jnp.bfloat16 and copy[0].tolist() == [1.0, 1.0] and copy[1] is None


@pytest.mark.parametrize(
    "update", [lambda *x: gradtx.incremental_update(*x, 0.1), lambda *x: gradtx.periodic_update(*x, 1, 2)]
)
def test_other_leaves_and_shapes_are_named(update):
    with pytest.raises(ValueError, match=r"new_tensors\[\"w\"\] has shape \(2,\), old_tensors have \(3,\)"):
        update({"w": jnp.ones(2)}, {"w": jnp.ones(3)})
    with pytest.raises(ValueError, match="'b'"):
        update({"w": jnp.ones(2)}, {"w": jnp.ones(2), "b": jnp.ones(1)})


def test_parameters_that_are_none_stay():
    moved = gradtx.apply_updates({"w": jnp.ones(2), "frozen": None}, {"w": jnp.ones(2), "frozen": jnp.ones(3)})
    assert moved["w"].tolist() == [2.0, 2.0] and moved["frozen"] is None

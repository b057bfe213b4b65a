"""What differs from device to device, and how it passes `shard_map`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import parallel

MESH = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2)
PARAMS = {"w": jnp.ones((8, 6)), "b": jnp.zeros(6), "scale": jnp.ones(())}
EACH, SAME = jax.tree.map(lambda _: P("data"), PARAMS), jax.tree.map(lambda _: P(), PARAMS)


def test_only_what_is_not_summed_differs():
    tx = gradtx.chain(gradtx.ema(0.9), gradtx.powersgd(1, "data"), gradtx.adam(0.1))
    params, state = parallel.replica_specs(tx, PARAMS, "data", MESH)
    assert params == SAME
    assert state["ema"].ema == EACH and state["count"] == P()  # of each device's own gradients
    assert state["powersgd"].error["w"] == P("data") and state["powersgd"].q["w"] == P()
    assert state["scale_by_adam"].mu == state["scale_by_adam"].nu == SAME


def test_parameters_that_devices_train_alone_differ():
    tx = gradtx.local_updates(gradtx.adam(0.1), 2, axis="data")
    params, state = parallel.replica_specs(tx, jax.eval_shape(lambda: PARAMS), "data", MESH)
    assert params == EACH and state.inner_state["scale_by_adam"].mu == EACH
    assert state.anchor == state.outer_state["trace"].trace == SAME
    assert state.steps_since_sync == state.inner_state["count"] == P()


def test_the_mesh_may_be_set_and_axes_several():
    with jax.set_mesh(GRID):
        assert parallel.replica_specs(gradtx.top_k(0.5, "data"), PARAMS, "data")[1].error == EACH
        both = ("data", "model")
        error = parallel.replica_specs(gradtx.top_k(0.5, both), PARAMS, both)[1].error
    assert error["w"] == P(both)


def test_arguments_of_update_are_each_devices_own():
    tx = gradtx.local_updates(gradtx.polyak_sgd(), 2, axis="data")
    params, _ = parallel.replica_specs(tx, PARAMS, "data", MESH, value=jnp.zeros(()))
    assert params == EACH


def loss(params, x):
    return jnp.mean((x @ params["w"] * params["scale"] + params["b"] - 1) ** 2)


@pytest.mark.parametrize("check_vma", [True, False])
@pytest.mark.parametrize(
    "tx",
    [
        gradtx.local_updates(gradtx.adam(0.05), 3, axis="data"),
        gradtx.chain(gradtx.top_k(0.3, "data"), gradtx.sgd(0.05)),
    ],
    ids=["local_updates", "top_k"],
)
def test_a_step_compiles_once_and_trains(tx, check_vma):
    specs, traces = parallel.replica_specs(tx, PARAMS, "data", MESH), []
    mapped = partial(jax.shard_map, mesh=MESH, check_vma=check_vma)

    @jax.jit
    @partial(mapped, in_specs=P(), out_specs=specs)
    def start(params):
        return parallel.stacked((params, tx.init(params)), specs)

    @jax.jit
    @partial(mapped, in_specs=(specs, P("data")), out_specs=(specs, P()))
    def step(carry, x):
        traces.append(carry)
        params, state = parallel.unstacked(carry, specs)
        value, grads = jax.value_and_grad(loss)(parallel.varying(params, "data"), x)
        updates, state = tx.update(grads, state, params)
        return parallel.stacked((gradtx.apply_updates(params, updates), state), specs), parallel.pmean(value, "data")

    x = jnp.asarray(np.random.default_rng(0).normal(size=(64, 8)), jnp.float32)
    carry, values = start(PARAMS), []
    for _ in range(12):
        carry, value = step(carry, x)
        values.append(value)
    assert len(traces) == 1 and values[-1] < 0.5 * values[0]


def test_stacked_is_undone_by_unstacked():
    specs = {"own": P("data"), "shared": P()}
    tree = {"own": jnp.arange(3.0), "shared": jnp.arange(2.0)}
    mapped = jax.shard_map(
        lambda tree: parallel.unstacked(parallel.stacked(tree, specs), specs), mesh=MESH, in_specs=P(), out_specs=specs
    )
    out = mapped(tree)
    assert out["own"].shape == (24,) and out["shared"].shape == (2,)


def test_what_is_no_transformation_or_axis_is_an_error():
    with pytest.raises(TypeError, match="`replica_specs`: tx must be a gradient transformation"):
        parallel.replica_specs(gradtx.adam, PARAMS, "data", MESH)
    with pytest.raises(ValueError, match="`replica_specs`: axis must be the name of a manual axis"):
        parallel.replica_specs(gradtx.adam(0.1), PARAMS, None, MESH)
    with pytest.raises(ValueError, match='`replica_specs`: the mesh has no axis "other"'):
        parallel.replica_specs(gradtx.adam(0.1), PARAMS, "other", MESH)
    with pytest.raises(ValueError, match="`replica_specs`: there is no mesh"):
        parallel.replica_specs(gradtx.adam(0.1), PARAMS, "data")

"""Devices along several axes, and along one axis of a mesh whose others are left to XLA."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from gradtx import parallel

METHODS = {
    "majority_sign": lambda axis: gradtx.majority_sign(axis),
    "powersgd": lambda axis: gradtx.powersgd(1, axis),
    "top_k": lambda axis: gradtx.top_k(0.3, axis),
    "local_updates": lambda axis: gradtx.local_updates(gradtx.adam(0.1), 2, axis=axis),
}
PARAMS = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32), "b": jnp.zeros(6)}
X = np.random.default_rng(1).normal(size=(8, 4, 8)).astype(np.float32)
each_method = pytest.mark.parametrize("name", METHODS)


def trained(tx, axis, mesh, rows, place=None, steps=4):
    """The parameters of the first device after some steps on examples of its own."""
    specs = parallel.replica_specs(tx, PARAMS, axis, mesh)

    manual = set(jax.tree.leaves(axis))

    @jax.jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), rows), out_specs=P(axis), axis_names=manual)
    def run(params, x):
        def step(carry, _):
            params, state = carry
            grads = jax.grad(lambda p: jnp.mean(jnp.square(x @ p["w"] + p["b"] - 1)))(parallel.varying(params, axis))
            updates, state = tx.update(grads, state, params)
            return (gradtx.apply_updates(params, updates), state), None

        carry = parallel.unstacked(parallel.stacked((params, tx.init(params)), specs), specs)
        (params, _), _ = jax.lax.scan(step, carry, length=steps)
        return jax.tree.map(lambda p: parallel.varying(p, axis)[None], params)

    put = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
        found = run({"w": put(PARAMS["w"], place or P()), "b": put(PARAMS["b"], P())}, put(X.reshape(32, 8), rows))
    return jax.tree.map(lambda p: np.asarray(p)[0], found)


def close(found, wanted):
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), found, wanted)  # float32, other orders


@each_method
def test_devices_along_two_axes_are_as_many_along_one(name):
    line = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
    grid = jax.make_mesh((4, 2), ("data", "more"), (AxisType.Auto,) * 2)
    one = trained(METHODS[name]("data"), "data", line, P("data"))
    two = trained(METHODS[name](("data", "more")), ("data", "more"), grid, P(("data", "more")))
    close(two, one)


@each_method
@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit], ids=str)
def test_parameters_may_be_sharded_along_the_other_axes(name, kind):
    line = jax.make_mesh((4,), ("replica",), (AxisType.Auto,), devices=jax.devices()[:4])
    grid = jax.make_mesh((4, 2), ("replica", "fsdp"), (AxisType.Auto, kind))
    whole = trained(METHODS[name]("replica"), "replica", line, P("replica"))
    close(trained(METHODS[name]("replica"), "replica", grid, P("replica"), P("fsdp")), whole)

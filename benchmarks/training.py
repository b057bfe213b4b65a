"""Training steps of a small model along several devices, in each of the ways that JAX has: pmap, jit, shard_map.

The model is that of `collectives`: layers of two products with a residual connection, then a perceptron with another.
Each program computes the same step: the gradient of the mean loss over the whole batch, then the method.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.collectives import LAYOUTS, WIDTH, filled, mesh_of, model
from gradtx.parallel import pmean, varying
from gradtx.sharding import init_sharded, on_mesh, state_shardings, zero


class Program(NamedTuple):
    """A compiled training step, `params, state = step(params, state, batch)`, and what it works on."""

    step: Any
    params: Any
    state: Any
    batch: Any


def outputs(params: Any, x: Any, constrain: Callable = lambda x: x) -> Any:
    """What the model makes of a batch of vectors."""
    for layer in params.values():
        x = constrain(x + jax.nn.gelu((x * (1 + layer["ln"])) @ layer["wq"]) @ layer["wo"])
        x = constrain(x + jax.nn.gelu(x @ layer["w1"] + layer["b1"]) @ layer["w2"])
    return x


def loss(params: Any, batch: Any, constrain: Callable = lambda x: x) -> Any:
    x, y = batch
    return jnp.mean((outputs(params, x, constrain) - y) ** 2)


def batch_of(size: int) -> Any:
    x, y = jax.random.split(jax.random.key(1))
    return jax.random.normal(x, (size, WIDTH)), jax.random.normal(y, (size, WIDTH))


def mesh_for(layout: str) -> Mesh:
    """The layout's mesh of eight devices; of fewer the one axis over which nothing but the batch is divided."""
    if jax.device_count() >= 8:
        return mesh_of(layout)
    return jax.make_mesh((jax.device_count(),), ("data",), (AxisType.Auto,))


def apply(tx: Any, grads: Any, params: Any, state: Any) -> Any:
    updates, state = tx.update(grads, state, params)
    return gradtx.apply_updates(params, updates), state


def pmap_data(tx: Any, layers: int, batch: Any) -> Program:
    """Data parallel with `jax.pmap`: parameters and state once for each device, with a leading dimension."""
    devices = min(jax.device_count(), 8)
    params = filled(model("replicated", mesh_for("replicated"), layers))
    copies = jax.tree.map(lambda x: np.broadcast_to(np.asarray(x), (devices, *x.shape)), params)
    parts = jax.tree.map(lambda x: np.asarray(x).reshape(devices, -1, *x.shape[1:]), batch)

    @partial(jax.pmap, axis_name="data", donate_argnums=(0, 1), devices=jax.devices()[:devices])
    def step(params, state, batch):
        return apply(tx, pmean(jax.grad(loss)(params, batch), "data"), params, state)

    each = partial(jax.pmap, axis_name="data", devices=jax.devices()[:devices])
    params = each(lambda x: x)(copies)
    return Program(step, params, each(tx.init)(params), each(lambda x: x)(parts))


def jit_on(layout: str, tx: Any, layers: int, batch: Any, divided: bool = False) -> Program:
    """`jax.jit` on a mesh, the state where `gradtx.sharding` puts it; `divided`, over the data axis too (ZeRO-1)."""
    mesh = mesh_for(layout)
    params = filled(model(layout, mesh, layers))
    places = jax.tree.map(lambda x: x.sharding, params)
    kept = zero(params) if divided else places
    tx = on_mesh(tx, kept, params)
    state = init_sharded(tx, params)
    rows = NamedSharding(mesh, P(mesh.axis_names[0]))

    def step(params, state, batch):
        grads = jax.grad(loss)(params, batch, lambda x: jax.lax.with_sharding_constraint(x, rows))
        return apply(tx, grads, params, state)

    out = places, jax.tree.map(lambda x: x.sharding, state)
    return Program(jax.jit(step, out_shardings=out, donate_argnums=(0, 1)), params, state, jax.device_put(batch, rows))


def shard_map_data(tx: Any, layers: int, batch: Any) -> Program:
    """Data parallel with `jax.shard_map`."""
    mesh = mesh_for("replicated")
    params = filled(model("replicated", mesh, layers))
    state = init_sharded(tx, params)
    batch = jax.device_put(batch, NamedSharding(mesh, P("data")))

    @partial(jax.shard_map, mesh=mesh, in_specs=(P(), P(), P("data")), out_specs=(P(), P()))
    def step(params, state, batch):
        return apply(tx, pmean(jax.grad(loss)(params, batch), "data"), params, state)

    return Program(jax.jit(step, donate_argnums=(0, 1)), params, state, batch)


def shard_map_fsdp(tx: Any, layers: int, batch: Any) -> Program:
    """FSDP with `jax.shard_map`, for methods of single entries: each device updates its part of the parameters.

    Parameters are gathered before use; the derivative of a gather sums the gradients and divides them again.
    """
    mesh = mesh_for("fsdp")
    params = filled(model("fsdp", mesh, layers))
    layout = LAYOUTS["fsdp"].specs
    specs = {name: {key: layout[key] for key in layer} for name, layer in params.items()}
    state = init_sharded(tx, params)
    state_specs = jax.tree.map(lambda x: x.sharding.spec, state)
    batch = jax.device_put(batch, NamedSharding(mesh, P("fsdp")))

    def whole(x, spec):
        return jax.lax.all_gather(x, "fsdp", tiled=True) if "fsdp" in spec else x

    def of_all(params, batch):  # the devices' losses are summed by the derivative: each is a part of the mean
        return loss(jax.tree.map(whole, params, specs), batch) / jax.lax.axis_size("fsdp")

    spread = partial(jax.shard_map, mesh=mesh)

    @partial(spread, in_specs=(specs, state_specs, P("fsdp")), out_specs=(specs, state_specs))
    def step(params, state, batch):
        return apply(tx, jax.grad(of_all)(params, batch), params, state)

    return Program(jax.jit(step, donate_argnums=(0, 1)), params, state, batch)


def shard_map_zero(tx: Any, layers: int, batch: Any) -> Program:
    """ZeRO-1 with `jax.shard_map`, for methods of single entries: each device updates its part, then all gather."""
    mesh = mesh_for("replicated")
    params = filled(model("replicated", mesh, layers))
    kept = zero(params)
    state = init_sharded(tx, params, kept)
    state_specs = jax.tree.map(lambda x: x.spec, state_shardings(tx, params, kept))
    cut = jax.tree.map(lambda x: list(x.spec).index("data") if "data" in x.spec else -1, kept)
    batch = jax.device_put(batch, NamedSharding(mesh, P("data")))
    parts = mesh.shape["data"]

    def summed(g, k):
        return jax.lax.psum(g, "data") if k < 0 else jax.lax.psum_scatter(g, "data", scatter_dimension=k, tiled=True)

    def own(x, k):
        if k < 0:
            return x
        size = x.shape[k] // parts
        return jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index("data") * size, size, k)

    def whole(x, k):
        return x if k < 0 else jax.lax.all_gather(x, "data", axis=k, tiled=True)

    specs = P(), state_specs
    spread = partial(jax.shard_map, mesh=mesh, check_vma=False)  # types cannot tell that what was gathered is the same

    @partial(spread, in_specs=(*specs, P("data")), out_specs=specs)
    def step(params, state, batch):
        grads = jax.grad(loss)(varying(params, "data"), batch)
        grads = jax.tree.map(lambda g, k: summed(g, k) / parts, grads, cut)
        params, state = apply(tx, grads, jax.tree.map(own, params, cut), state)
        return jax.tree.map(whole, params, cut), state

    return Program(jax.jit(step, donate_argnums=(0, 1)), params, state, batch)


ENTRYWISE = ("adamw",)  # of the methods that are timed: what is true of a part of a parameter is true of the whole


def settings(method: str) -> dict[str, Callable[[Any, int, Any], Program]]:
    """The ways in which a method can train on these devices; others are compared with the first."""
    found: dict[str, Callable[[Any, int, Any], Program]] = {
        "pmap, data parallel": pmap_data,
        "jit, data parallel": partial(jit_on, "replicated"),
        "shard_map, data parallel": shard_map_data,
    }
    if jax.device_count() < 8:
        return found
    found["jit, FSDP"] = partial(jit_on, "fsdp")
    found["jit, FSDP x tensor"] = partial(jit_on, "fsdp x tensor")
    found["jit, ZeRO-1"] = partial(jit_on, "replicated", divided=True)
    if method in ENTRYWISE:
        found |= {"shard_map, FSDP": shard_map_fsdp, "shard_map, ZeRO-1": shard_map_zero}
    return found

"""A method's update, compiled for a mesh from shapes alone: what its devices say to each other, and what each keeps."""

import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax.sharding import PartitionSpec

import gradtx
from benchmarks.collectives import Counted, collectives, mesh_of, model, state_bytes
from benchmarks.recipes import step_of
from gradtx import parallel
from gradtx.sharding import abstract_state, jit_update, on_mesh, zero

UPDATES = ("fsdp", "fsdp x tensor", "zero")  # zero: replicated parameters, and each device keeps an eighth of the state
SHORT = {
    "all-reduce": "AR",
    "all-gather": "AG",
    "reduce-scatter": "RS",
    "all-to-all": "A2A",
    "collective-permute": "CP",
    "collective-broadcast": "CB",
}


class Update(NamedTuple):
    """What is known of a compiled update."""

    collectives: dict[str, Counted]
    state: int  # bytes of state on one device

    @property
    def bytes(self) -> int:
        """Of the results of its collectives, on one device."""
        return sum(counted.bytes for counted in self.collectives.values())


def update_of(library: ModuleType, tx: Any, layout: str, devices: Any = None, options: Any = None) -> Update:
    """The part of a training step after the gradients, which lie as the parameters do, compiled for eight devices.

    The state lies where `gradtx.sharding` puts it, in Optax's program too: that is the best that its users can do.
    """
    mesh = mesh_of("replicated" if layout == "zero" else layout, devices=devices)
    params = model("replicated" if layout == "zero" else layout, mesh)
    places = zero(params) if layout == "zero" else jax.tree.map(lambda x: x.sharding, params)
    state = abstract_state(tx, params, places)
    if library is gradtx:
        step: Any = jit_update(on_mesh(tx, places, params), params, state)
    else:
        out = jax.tree.map(lambda x: x.sharding, (params, state))
        step = jax.jit(step_of(library, tx), out_shardings=out, donate_argnums=(0, 1))
    return Update(collectives(step.lower(params, state, params).compile(options)), state_bytes(state))


def manual_update(tx: Any, axis: str = "data") -> Update:
    """The update of a method that sends less: each device has its own gradients along a manual axis."""
    mesh = mesh_of("replicated")
    params = model("replicated", mesh)
    specs = parallel.replica_specs(tx, params, axis, mesh)
    spread = functools.partial(jax.shard_map, mesh=mesh)
    each, everywhere = PartitionSpec(axis), PartitionSpec()

    @functools.partial(spread, in_specs=everywhere, out_specs=specs)
    def start(params):
        return parallel.stacked((params, tx.init(params)), specs)

    @functools.partial(spread, in_specs=(specs, each), out_specs=specs)
    def step(carry, grads):
        params, state = parallel.unstacked(carry, specs)
        updates, state = tx.update(jax.tree.map(lambda g: g[0], grads), state, params)
        return parallel.stacked((gradtx.apply_updates(params, updates), state), specs)

    grads = jax.tree.map(lambda p: jax.ShapeDtypeStruct((mesh.size, *p.shape), p.dtype), params)
    carry = jax.eval_shape(start, params)
    whole = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(tx.init, params)))
    return Update(collectives(jax.jit(step).lower(carry, grads).compile()), whole)


def attempt(make: Callable[[], Update]) -> Update | str:
    """The update, or the name of the error for which there is none."""
    try:
        return make()
    except Exception as error:  # a library may raise whatever it likes: what does not compile is a result too
        return type(error).__name__


def cells(update: Update | str) -> list[str]:
    """Three cells of a table: the collectives, their bytes, the state's bytes; or the error's name."""
    if isinstance(update, str):
        return [update, "-", "-"]
    said = ", ".join(f"{count.operations} {SHORT[kind]}" for kind, count in sorted(update.collectives.items()))
    return [said or "none", f"{update.bytes:,}", f"{update.state:,}"]

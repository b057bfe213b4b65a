"""Devices: where arrays lie, and whether there is more than one place."""

from typing import Any

import jax
import jax.core
from jax.sharding import NamedSharding, PartitionSpec


def on_one_device() -> bool:
    """Whether arrays cannot be sharded, as far as tracing can know: there is one device, and no mesh is set.

    On several devices XLA gathers the operands of a reduction with two results, and moves arrays that are added in
    different shardings. So what saves passes over memory in such ways is for one device alone.
    """
    return jax.device_count() == 1 and jax.sharding.get_abstract_mesh().empty


def place_beside(state: Any, params: Any) -> Any:
    """Puts the state's single-device leaves (counts, scalars) on the params' mesh, replicated.

    Without it the first compiled step would move them, and the second step would compile again.
    """
    meshes = {s.mesh for x in jax.tree.leaves(params) if isinstance(s := sharding_of(x), NamedSharding)}
    if len(meshes) != 1 or (mesh := meshes.pop()).size == 1:
        return state
    replicated = NamedSharding(mesh, PartitionSpec())
    alone = lambda x: (s := sharding_of(x)) is not None and len(s.device_set) == 1
    return jax.tree.map(lambda x: jax.device_put(x, replicated) if alone(x) else x, state)


def sharding_of(x: Any) -> Any:
    """Where an array lies; None where that is not known: in a trace, or of a shape alone."""
    return x.sharding if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else None


def whole_everywhere(x: jax.Array) -> jax.Array:
    """The array gathered on every device, where its type says that it is sharded: such an array cannot be flattened."""
    sharding = jax.typeof(x).sharding
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec())) if any(sharding.spec) else x


def laid_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array sharded as the type of `like` says, if it says so: the inverse of `whole_everywhere`."""
    sharding = jax.typeof(like).sharding
    return jax.sharding.reshard(x, sharding) if any(sharding.spec) else x

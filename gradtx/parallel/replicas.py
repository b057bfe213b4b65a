"""Parameters and states that differ from device to device: their types, and how they pass `jax.shard_map`."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from gradtx import collectives, leafwise
from gradtx.apply import apply_updates
from gradtx.collectives import Axis, as_axis, names
from gradtx.core import as_transformation
from gradtx.parallel.arguments import bound
from gradtx.placement import differing_like, manual_axes


def varying(tree: Any, axis: Axis) -> Any:
    """The tree as one that may differ along a manual axis. Values stay; under `jax.pmap` and with `check_vma=False`,
    where types do not tell what varies, all does.

        grads = jax.grad(loss)(varying(params, "data"), batch)

    are each device's own gradients: without it `jax.shard_map` sums them over the axis.

    Raises:
      ValueError: the axis is not bound here.
    """
    return collectives.varying(tree, bound("varying", axis))


def replica_specs(tx: Any, params: Any, axis: Axis, mesh: Any = None, **extra: Any) -> tuple[Any, Any]:
    """What of the parameters and of a state differs from device to device: the specs with which both pass `shard_map`.

        specs = replica_specs(tx, params, "data", mesh)

        @partial(jax.shard_map, mesh=mesh, in_specs=P(), out_specs=specs)
        def start(params):
            return stacked((params, tx.init(params)), specs)

        @partial(jax.shard_map, mesh=mesh, in_specs=(specs, P("data")), out_specs=specs)
        def step(carry, batch):
            params, state = unstacked(carry, specs)
            grads = jax.grad(loss)(varying(params, "data"), batch)
            updates, state = tx.update(grads, state, params)
            return stacked((apply_updates(params, updates), state), specs)

    What differs has one dimension more outside of `shard_map`, the first, that of the devices: `P(axis)`. What does not
    differ, such as counts, and everything that comes out of a sum over the axis, is replicated: `P()`. Found by tracing
    `init`, and `update` on each device's own gradients until nothing more differs; nothing is computed.

    Args:
      tx: a transformation, or a foreign `(init, update)` pair, of each device's own gradients: such as those of
        `gradtx.communication`.
      params: the parameters, or their shapes, that are the same on all devices at the start.
      axis: the axis's name, or a tuple of names.
      mesh: that of the `shard_map`; None, the one that is set by `jax.set_mesh`.
      **extra: shapes of the keyword arguments that its `update` reads, each device's own.

    Returns:
      The specs of the parameters and of the state, with a `PartitionSpec` for each leaf.
    """
    tx = as_transformation("replica_specs", "tx", tx)
    axis = as_axis("replica_specs", "axis", axis)
    if axis is None:
        raise ValueError('`replica_specs`: axis must be the name of a manual axis, such as "data", got None.')
    mesh = jax.sharding.get_abstract_mesh() if mesh is None else mesh
    if mesh.empty:
        raise ValueError("`replica_specs`: there is no mesh: give one, or set it by `jax.set_mesh`.")
    for name in names(axis):
        if name not in mesh.axis_names:
            raise ValueError(f'`replica_specs`: the mesh has no axis "{name}", only {mesh.axis_names}.')
    found: list[Any] = []

    def traced(params: Any, extra: Any) -> jax.Array:
        carry, kinds = (params, tx.init(params)), None
        while (now := jax.tree.map(lambda x: bool(manual_axes(x)), carry)) != kinds:
            kinds, (params, state) = now, carry
            grads = collectives.varying(leafwise.zeros(leafwise.floats(params)), axis)
            updates, state = tx.update(grads, state, params, **collectives.varying(extra, axis))
            after = apply_updates(params, updates), state
            carry = jax.tree.map(lambda x, y: differing_like(x, y), carry, after)
        found.append(kinds)
        return jnp.zeros(())

    everywhere = PartitionSpec()
    spread = partial(jax.shard_map, mesh=mesh, axis_names=set(names(axis)), out_specs=everywhere)
    jax.eval_shape(spread(traced, in_specs=everywhere), *jax.tree.map(jax.typeof, (params, extra)))
    differs = PartitionSpec(axis)
    return jax.tree.map(lambda x: differs if x else everywhere, found[0])


def stacked(tree: Any, specs: Any) -> Any:
    """Parameters and state as they leave `jax.shard_map`: what differs by device in a first dimension of size 1.

    Args:
      tree: what a step made, the same as `specs` in structure.
      specs: from `replica_specs`.
    """
    return _where_differing(lambda x, axis: collectives.varying(x, axis)[None], tree, specs)


def unstacked(tree: Any, specs: Any) -> Any:
    """Parameters and state as a step takes them, from what entered `jax.shard_map`: the inverse of `stacked`."""
    return _where_differing(lambda x, _: x[0], tree, specs)


def _where_differing(change: Callable, tree: Any, specs: Any) -> Any:
    is_spec = lambda x: isinstance(x, PartitionSpec)
    return jax.tree.map(lambda spec, x: change(x, spec[0]) if len(spec) else x, specs, tree, is_leaf=is_spec)

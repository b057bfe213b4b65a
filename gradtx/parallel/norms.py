"""What is true of a whole tree of which each device holds a part."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import PartitionSpec

from gradtx import collectives, leafwise, paths
from gradtx.collectives import Axis, names
from gradtx.parallel.arguments import bound
from gradtx.placement import axes_of


def global_norm(tree: Any, axis: Axis, specs: Any = None) -> Array:
    """The L2 norm of all leaves together, where each device along a manual axis holds a part of them.

    Leaves that vary along the axis are summed over it; those that do not are there on every device, and count once. It
    is one sum of one vector, with an entry for each leaf, in float32 or wider.

    Args:
      tree: arrays.
      axis: the axis's name, or a tuple of names.
      specs: a `PartitionSpec` for each leaf, as in `in_specs` of `jax.shard_map`; a prefix of the tree will do. It is
        needed under `jax.pmap` and with `check_vma=False`, where types do not tell which leaves vary, and every leaf
        counts as a part without it.

    Raises:
      ValueError: the axis is not bound here; the specs are not those of the tree.
    """
    axis = bound("global_norm", axis)
    sums = leafwise.squares(tree)
    parts = None if specs is None else [_parts(spec, axis) for spec in _of_leaves(specs, tree)]
    return leafwise.joint_norm(collectives.totals(sums, axis, parts))


def all_finite(tree: Any, axis: Axis) -> Array:
    """Whether no entry of any leaf on any device along a manual axis is NaN or infinite: a bool, the same on all.

    Args:
      tree: arrays; integers are finite.
      axis: the axis's name, or a tuple of names.

    Raises:
      ValueError: the axis is not bound here.
    """
    return ~leafwise.anywhere(lambda x: ~jnp.isfinite(x), tree, axis=bound("all_finite", axis))


def _of_leaves(specs: Any, tree: Any) -> list[PartitionSpec]:
    is_spec = lambda x: isinstance(x, PartitionSpec) or paths.is_none(x)
    try:
        spread = jax.tree.broadcast(specs, tree, is_leaf=is_spec)
    except ValueError as error:
        raise ValueError(f"`global_norm`: specs must have the tree's structure or a prefix of it: {error}") from None
    found = jax.tree.leaves(spread, is_leaf=lambda x: isinstance(x, PartitionSpec))
    if not all(isinstance(x, PartitionSpec) for x in found) or len(found) != len(jax.tree.leaves(tree)):
        raise TypeError(f"`global_norm`: specs must hold a PartitionSpec for each leaf, got {specs!r}.")
    return found


def _parts(spec: PartitionSpec, axis: Axis) -> tuple[str, ...]:
    mentioned = {name for entry in spec for name in axes_of(entry)}
    return tuple(name for name in names(axis) if name in mentioned)

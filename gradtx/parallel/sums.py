"""Sums and means of gradients along a manual axis."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx.collectives import Axis, parts_along, size
from gradtx.parallel.arguments import bound


def psum(tree: Any, axis: Axis) -> Any:
    """The sum of each leaf over the devices along a manual axis, for gradients and losses. None stays None.

    Inside `jax.shard_map`, `jax.grad` with respect to parameters that are the same on all devices sums over the axis by
    itself. Types say so: such a gradient does not vary along the axis. `jax.lax.psum` would multiply it by the number
    of devices; here it stays as it is. Under `jax.pmap` and with `check_vma=False`, where `jax.grad` sums nothing, all
    is summed.

    Args:
      tree: arrays. What does not vary along the axis, where types tell, counts as a sum over it already: a number that
        is the same on all devices for another reason, such as a count of steps, does not belong here.
      axis: the axis's name, or a tuple of names.

    Raises:
      ValueError: the axis is not bound here.
    """
    axis = bound("psum", axis)
    leaves, structure = jax.tree.flatten(tree)
    leaves = [jnp.asarray(x) for x in leaves]
    groups: dict[tuple[str, ...], list[int]] = {}
    for i, x in enumerate(leaves):
        groups.setdefault(parts_along(x, axis), []).append(i)
    for along, places in groups.items():
        if along:
            found = jax.lax.psum([leaves[i] for i in places], along)
            for i, x in zip(places, found, strict=True):
                leaves[i] = x
    return structure.unflatten(leaves)


def pmean(tree: Any, axis: Axis) -> Any:
    """The mean of each leaf over the devices along a manual axis, for gradients and losses: `psum`, divided.

        grads = pmean(jax.grad(loss)(params, batch), "data")

    It is the gradient of the mean loss in all three settings. `jax.lax.pmean` is not: inside `jax.shard_map`, with the
    checks that are its default, it leaves the sum that `jax.grad` has made, on 8 devices 8 times the mean.

    Args:
      tree: as in `psum`.
      axis: the axis's name, or a tuple of names.

    Raises:
      ValueError: the axis is not bound here.
    """
    axis = bound("pmean", axis)
    share = 1 / size(axis)
    return jax.tree.map(lambda x: x * share, psum(tree, axis))

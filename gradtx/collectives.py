"""Sums over devices along manual axes: those of `jax.shard_map` and `jax.pmap`, where each device runs the program.

Along such an axis an array is a part of a whole, or there on every device. Under `jax.shard_map` types tell which
(`placement.manual_axes`), unless `check_vma=False`; there, and under `jax.pmap`, everything counts as a part.
"""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.paths import shown
from gradtx.placement import manual_axes, varying_along

Axis: TypeAlias = str | tuple[str, ...] | None  # the name of a manual axis, or several; None: the device is alone


class AxisError(ValueError):
    """An axis is not there, or what should differ along it does not."""


def as_axis(owner: str, name: str, axis: Any) -> Axis:
    """The axis in its stored, hashable form."""
    given = tuple(axis) if isinstance(axis, (tuple, list)) else () if axis is None else (axis,)
    if not all(isinstance(x, str) for x in given) or len(set(given)) < len(given) or axis in ((), []):
        raise TypeError(
            f'`{owner}`: {name} must be the name of a manual axis, such as "data", a tuple of different ones, or None, '
            f"got {axis!r}."
        )
    return given if isinstance(axis, list) else axis


def names(axis: Axis) -> tuple[str, ...]:
    """The axis as a tuple of names."""
    return () if axis is None else (axis,) if isinstance(axis, str) else axis


def size(axis: Axis) -> int:
    """How many devices there are along the axis.

    Raises:
      AxisError: it is not bound here.
    """
    product = 1
    for name in names(axis):
        try:
            product *= jax.lax.axis_size(name)
        except NameError:
            raise AxisError(
                f'the axis "{name}" is bound by no `jax.shard_map` or `jax.pmap` here: call this in a function that '
                "one of them maps along it. Under `jax.jit` alone leave `axis` out: sums are of whole arrays there"
            ) from None
    return product


def is_bound(axis: Axis) -> bool:
    """Whether every name is that of a manual axis here; of None, no."""
    try:
        return axis is not None and size(axis) > 0
    except AxisError:
        return False


def is_checked(axis: Axis) -> bool:
    """Whether types tell what differs along the axis: what differs most, a device's place on it, says so."""
    size(axis)
    return all(manual_axes(jax.lax.axis_index(name)) for name in names(axis))


def parts_along(x: Any, axis: Axis) -> tuple[str, ...]:
    """Those of the axis's names along which an array differs by its type; all of them, where types do not tell."""
    return tuple(name for name in names(axis) if name in manual_axes(x)) if is_checked(axis) else names(axis)


def total(x: Array, axis: Axis) -> Array:
    """The sum of an array over the devices along the axis; what is there on every device counts once.

    The same groups of devices sum whatever differs along whatever part of the axis. So XLA makes one all-reduce of all
    that do not depend on each other, and leaves' sums may be taken one by one.
    """
    return x if axis is None else _summed(x, axis, parts_along(x, axis))


def totals(sums: list[Array], axis: Axis, parts: list[tuple[str, ...]] | None = None) -> list[Array]:
    """As `total`, of several scalars together: one sum of one vector.

    Args:
      parts: of each the names along which it is a part, where the caller knows better than its type.
    """
    if axis is None or not sums:
        return sums
    parts = [parts_along(x, axis) for x in sums] if parts is None else parts
    moved = [i for i, along in enumerate(parts) if along]
    if not moved:
        return sums
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        vector = jnp.stack([_once(sums[i], axis, parts[i]) for i in moved])
    vector = jax.lax.psum(vector, names(axis))
    found = {i: vector[n].astype(sums[i].dtype) for n, i in enumerate(moved)}
    return [found.get(i, x) for i, x in enumerate(sums)]


def first_alone(x: Array, axes: Sequence[str]) -> Array:
    """Of equal copies along manual axes the first, 0 in place of the others: a sum along them counts it once."""
    first = [jax.lax.axis_index(name) == 0 for name in axes]
    return jnp.where(jnp.all(jnp.stack(first)), x, jnp.zeros_like(x)) if first else x


def anywhere(found: Array, axis: Axis) -> Array:
    """Whether a bool scalar is true on any device along the axis."""
    return found if axis is None else total(found.astype(jnp.int32), axis) > 0


def varying(tree: Any, axis: Axis) -> Any:
    """The tree as one that may differ along the axis, by its types; as it is, where they do not tell."""
    if not is_bound(axis) or not is_checked(axis):
        return tree
    return varying_along(tree, names(axis))


def require_unreduced(updates: Any, axis: Axis) -> None:
    """For what has each device's own gradients to send.

    Raises:
      AxisError: types tell that one is the same along the axis; it is named.
    """
    if axis is None or not is_checked(axis):
        return
    for path, g in jax.tree.leaves_with_path(updates):
        if not set(names(axis)) <= manual_axes(g):
            raise AxisError(
                f"updates{shown(path)} does not differ along {axis!r}: it is summed already, as `jax.grad` does inside "
                "`jax.shard_map` for parameters that are the same on all devices. Take gradients at "
                f"`gradtx.parallel.varying(params, {axis!r})`"
            )


def _summed(x: Array, axis: Axis, along: tuple[str, ...]) -> Array:
    return jax.lax.psum(_once(x, axis, along), names(axis)) if along else x


def _once(x: Array, axis: Axis, along: tuple[str, ...]) -> Array:
    """Zero but on the first device along the names along which the array is no part."""
    return first_alone(x, [name for name in names(axis) if name not in along])

"""Leaves as matrices: which axes are rows and columns, and one computation for all matrices of a shape."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array

from gradtx.placement import laid_like, on_one_device, whole_everywhere

MOST = 2**24  # entries of matrices that are stacked; beyond, a device is busy with fewer


class Axes(NamedTuple):
    """The axes of an array that holds matrices, each axis in one of three groups."""

    batch: tuple[int, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def sizes(self, shape: Sequence[int]) -> tuple[int, int, int]:
        """How many matrices an array of this shape holds, their rows, and their columns."""
        matrices, rows, columns = (math.prod(shape[i] for i in group) for group in self)
        return matrices, rows, columns


def axes(ndim: int, rows: int | Sequence[int], columns: int | Sequence[int]) -> Axes:
    """The axes of an array of `ndim` dimensions: the rows and columns that are named, the others its batch.

    Args:
      rows, columns: one axis or several, whose product it is, in that order; negative ones count from the end.

    Raises:
      ValueError: there are fewer than two dimensions, an axis is not there, or it is named twice.
    """
    named = [(group,) if isinstance(group, int) else tuple(group) for group in (rows, columns)]
    every = [i for group in named for i in group]
    if ndim < 2 or not all(-ndim <= i < ndim for i in every):
        raise ValueError(f"it has {ndim} dimensions, which do not hold the axes {named[0]} and {named[1]}")
    row_axes, column_axes = (tuple(i % ndim for i in group) for group in named)
    together = row_axes + column_axes
    if len(set(together)) < len(together):
        raise ValueError(f"of its {ndim} dimensions one is named twice in the axes {named[0]} and {named[1]}")
    return Axes(tuple(i for i in range(ndim) if i not in together), row_axes, column_axes)


def as_matrices(x: Array, axes: Axes) -> Array:
    """The matrices in an array, stacked along a first axis."""
    return x.transpose(sum(axes, ())).reshape(axes.sizes(x.shape))


def from_matrices(matrices: Array, axes: Axes, shape: Sequence[int]) -> Array:
    """The array of this shape that holds the matrices: the inverse of `as_matrices`."""
    order = sum(axes, ())
    return matrices.reshape([shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])


def map_matrices(fn: Callable[[Array], Array], leaves: Sequence[Array], axes: Sequence[Axes]) -> list[Array]:
    """`fn` of every matrix in the leaves. Those of one shape are computed together, tall ones as their transposes.

    On several devices a leaf may be sharded in its own way: there each leaf is computed for itself.

    Args:
      fn: from matrices stacked along a first axis, with at most as many rows as columns, to as many of that shape.
        It must compute each for itself, and of a transpose the transpose.
    """
    wide = [columns >= rows for _, rows, columns in (a.sizes(x.shape) for a, x in zip(axes, leaves, strict=True))]
    stacks = [as_matrices(whole_everywhere(x), a) for x, a in zip(leaves, axes, strict=True)]
    stacks = [x if flat else x.mT for x, flat in zip(stacks, wide, strict=True)]
    if any(isinstance(x, jax.core.Tracer) for x in stacks):
        fn = jax.jit(fn)  # stacks of one shape share a trace
    found = {}
    for group in _together(stacks):
        result = fn(jnp.concatenate([stacks[i] for i in group]) if len(group) > 1 else stacks[group[0]])
        ends = [sum(len(stacks[i]) for i in group[: n + 1]) for n in range(len(group) - 1)]
        found |= zip(group, jnp.split(result, ends), strict=True)
    back = [found[i] if wide[i] else found[i].mT for i in range(len(stacks))]
    return [laid_like(from_matrices(m, a, x.shape), x) for m, a, x in zip(back, axes, leaves, strict=True)]


def _together(stacks: list[Array]) -> list[list[int]]:
    """The places of the stacks that are computed as one: of a dtype and a matrix shape, up to `MOST` entries."""
    if not on_one_device():
        return [[i] for i in range(len(stacks))]
    groups: dict = {}
    for i, x in enumerate(stacks):
        bundles = groups.setdefault((x.dtype, x.shape[1:]), [[]])
        if bundles[-1] and sum(stacks[j].size for j in bundles[-1]) + x.size > MOST:
            bundles.append([])
        bundles[-1].append(i)
    return [bundle for bundles in groups.values() for bundle in bundles]

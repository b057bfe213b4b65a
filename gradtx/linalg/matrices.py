"""Leaves as matrices: which axes are rows and columns, and one computation for all matrices of a shape."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx.linalg.distributed import explicit_mesh, spread
from gradtx.placement import manual_axes, on_one_device

MOST = 2**26  # bytes of matrices that are stacked; beyond, a device is busy with fewer


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


def map_matrices(
    fn: Callable[..., Array],
    leaves: Sequence[Array],
    axes: Sequence[Axes],
    operands: Sequence[Any] = (),
    *,
    dtype: DTypeLike | None = None,
    max_bytes: int = MOST,
) -> list[Array]:
    """`fn` of every matrix in the leaves. Those of one shape are computed together, tall ones as their transposes.

    How depends on what is known of where the leaves lie:

    - On one device, and in a function that `jax.shard_map` maps along all axes of its mesh: stacked.
    - On several, where types tell how leaves are sharded (on a mesh with Explicit axes): each device computes some of
      the matrices, whole. For each shape their parts travel in one all-to-all, and back in another. Matrices that are
      the same on several devices are divided among these, and gathered.
    - On several, where types do not tell: each leaf is computed for itself, and XLA decides what travels.

    In the second case, of n matrices sharded along mesh axes with D devices, each device computes ceil(n / D), and
    sends as much each way; where D does not divide n, some are computed again for nothing. One alone is gathered, and
    computed on every device: that moves half as much. Mesh axes along which matrices are replicated count among the D
    too, as far as they make ceil(n / D) smaller; to gather along them moves about what is then sent less. A batch axis
    that is sharded (experts) stays where it is, and nothing travels along it. Leaves of one shape are together if they
    are sharded along the same mesh axes, be it in other dimensions. A result is sharded as its leaf. Outside of `jit`
    each call compiles there.

    Args:
      fn: from matrices stacked along a first axis, with at most as many rows as columns, and the operands, to as many
        matrices of that shape and dtype. It must compute each for itself, and of a transpose the transpose.
      leaves: arrays of two or more dimensions.
      axes: of each leaf.
      operands: pytrees of what else `fn` takes, whole on every device. `fn` must hold no traced array of its own: JAX
        knows only those that are handed to each device.
      dtype: what real matrices are rounded to before they travel, and what `fn` is given; None, the leaf's. Results
        have the leaf's.
      max_bytes: of the matrices of a shape that are on a device at a time, at least one; beyond, they are computed in
        rounds, each with its own collectives. On one device a leaf is not divided.
    """
    flat, structure = jax.tree.flatten(list(operands))
    places = [i for i, x in enumerate(flat) if isinstance(x, jax.Array)]  # numbers stay constants

    def given(stack: Array, *arrays: Array) -> Array:
        every = dict(enumerate(flat)) | dict(zip(places, arrays, strict=True))
        return fn(stack, *structure.unflatten(every.values()))

    leaves, arrays = [jnp.asarray(x) for x in leaves], [flat[i] for i in places]
    dtypes = [x.dtype if dtype is None or jnp.iscomplexobj(x) else jnp.dtype(dtype) for x in leaves]
    meshes: dict = {}
    for i, x in enumerate(leaves):
        meshes.setdefault(explicit_mesh(x), []).append(i)
    found = {}
    for mesh, group in meshes.items():
        mine, mine_axes, mine_dtypes = ([every[i] for i in group] for every in (leaves, axes, dtypes))
        compute = _beside if mesh is None else spread
        found |= zip(group, compute(given, arrays, mine, mine_axes, mine_dtypes, max_bytes), strict=True)
    return [found[i] for i in range(len(leaves))]


def _beside(
    fn: Callable[..., Array],
    operands: Sequence[Array],
    leaves: Sequence[Array],
    axes: Sequence[Axes],
    dtypes: Sequence[Any],
    most: int,
) -> list[Array]:
    """As `map_matrices`, where no type says that a leaf is sharded."""
    wide = [columns >= rows for _, rows, columns in (a.sizes(x.shape) for a, x in zip(axes, leaves, strict=True))]
    stacks = [as_matrices(x, a).astype(dtype) for x, a, dtype in zip(leaves, axes, dtypes, strict=True)]
    stacks = [x if flat else x.mT for x, flat in zip(stacks, wide, strict=True)]
    if any(isinstance(x, jax.core.Tracer) for x in (*stacks, *operands)):
        fn = jax.jit(fn)  # stacks of one shape share a trace
    found = {}
    for group in _together(stacks, most):
        stack = jnp.concatenate([stacks[i] for i in group]) if len(group) > 1 else stacks[group[0]]
        ends = [sum(len(stacks[i]) for i in group[: n + 1]) for n in range(len(group) - 1)]
        found |= zip(group, jnp.split(fn(stack, *operands), ends), strict=True)
    back = [found[i] if wide[i] else found[i].mT for i in range(len(stacks))]
    return [from_matrices(m.astype(x.dtype), a, x.shape) for m, a, x in zip(back, axes, leaves, strict=True)]


def _together(stacks: list[Array], most: int) -> list[list[int]]:
    """The places of the stacks that are computed as one: of a dtype and a matrix shape, up to `most` bytes."""
    if not on_one_device() and not jax.sharding.get_abstract_mesh().are_all_axes_manual:
        return [[i] for i in range(len(stacks))]
    groups: dict = {}
    for i, x in enumerate(stacks):
        bundles = groups.setdefault((x.dtype, x.shape[1:], manual_axes(x)), [[]])
        if bundles[-1] and sum(stacks[j].nbytes for j in bundles[-1]) + x.nbytes > most:
            bundles.append([])
        bundles[-1].append(i)
    return [bundle for bundles in groups.values() for bundle in bundles]

"""Leaves as matrices: which axes are rows and columns, and one computation for all matrices of a shape."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from gradtx.linalg.blocks import form_by_type
from gradtx.linalg.distributed import explicit_mesh, spread
from gradtx.placement import manual_axes, on_one_device, zeros_of_axes

MOST = 2**26  # bytes of matrices that are stacked; beyond, a device is busy with fewer


class Axes(NamedTuple):
    """The axes of an array that holds matrices, or tensors of any other rank: each axis in one group."""

    batch: tuple[int, ...]
    sides: tuple[tuple[int, ...], ...]  # of a matrix two, its rows and its columns; each the product of its axes

    @property
    def rows(self) -> tuple[int, ...]:
        return self.sides[0]

    @property
    def columns(self) -> tuple[int, ...]:
        return self.sides[1]

    @property
    def order(self) -> tuple[int, ...]:
        """All axes, the batch first."""
        return self.batch + sum(self.sides, ())

    @property
    def transposed(self) -> "Axes":
        """The same matrices with rows for columns."""
        return Axes(self.batch, self.sides[::-1])

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many tensors an array of this shape holds, and the size of each side: of matrices rows and columns."""
        return tuple(math.prod(shape[i] for i in group) for group in (self.batch, *self.sides))


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
    return Axes(tuple(i for i in range(ndim) if i not in together), (row_axes, column_axes))


def every_axis(ndim: int) -> Axes:
    """The axes of one tensor, of which each is a side."""
    return Axes((), tuple((i,) for i in range(ndim)))


def as_matrices(x: Array, axes: Axes) -> Array:
    """The matrices in an array, or its tensors, stacked along a first axis."""
    return x.transpose(axes.order).reshape(axes.sizes(x.shape))


def from_matrices(matrices: Array, axes: Axes, shape: Sequence[int]) -> Array:
    """The array of this shape that holds the matrices: the inverse of `as_matrices`."""
    order = axes.order
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
    """`fn` of every matrix in the leaves: `map_stacks` of one array each, tall ones as their transposes.

    Args:
      fn: from matrices stacked along a first axis, with at most as many rows as columns, and the operands, to as many
        matrices of that shape and dtype. It must compute each for itself, and of a transpose the transpose.
      leaves: arrays of two or more dimensions.
      axes: of each leaf.
      operands, max_bytes: see `map_stacks`.
      dtype: what real matrices are rounded to before they travel, and what `fn` is given; None, the leaf's. Results
        have the leaf's.
    """
    leaves = [jnp.asarray(x) for x in leaves]
    narrow = [x if dtype is None or jnp.iscomplexobj(x) else x.astype(dtype) for x in leaves]
    flat = [wide(x, a) for x, a in zip(leaves, axes, strict=True)]
    found = map_stacks(
        lambda x, *rest: (fn(*x, *rest),), [(x,) for x in narrow], [(a,) for a in flat], operands, max_bytes=max_bytes
    )
    return [y.astype(x.dtype) for x, (y,) in zip(leaves, found, strict=True)]


def wide(x: Array, axes: Axes) -> Axes:
    """The axes with which the matrices in an array have at most as many rows as columns.

    Of square ones, as they are or as their transposes, those with which they lie the same way on a mesh, if they can.
    """
    _, rows, columns = axes.sizes(x.shape)
    if rows != columns:
        return axes if rows < columns else axes.transposed
    return min((axes, axes.transposed), key=lambda a: form_by_type(x, a))


def map_stacks(
    fn: Callable[..., Sequence[Array]],
    items: Sequence[Sequence[Array]],
    axes: Sequence[Sequence[Axes]],
    operands: Sequence[Any] = (),
    *,
    max_bytes: int = MOST,
) -> list[list[Array]]:
    """`fn` of every tensor in the items. An item is arrays that belong together: of a leaf its gradient, its state.

    Items of the same shapes and dtypes are computed together, stacked. How depends on what is known of where they lie:

    - On one device, and in a function that `jax.shard_map` maps along all axes of its mesh: stacked.
    - On several, where types tell how arrays are sharded (on a mesh with Explicit axes): each device computes some of
      the tensors, whole. For each shape their parts travel in one all-to-all, and back in another; so do all arrays of
      an item that are of one dtype and sharded along the same mesh axes. Those that are the same on several devices are
      divided among these, and gathered.
    - On several, where types do not tell: each item is computed for itself, and XLA decides what travels.

    In the second case, of n matrices sharded along mesh axes with D devices, each device computes ceil(n / D), and
    sends as much each way; where D does not divide n, some are computed again for nothing. One alone is gathered, and
    computed on every device: that moves half as much. Mesh axes along which matrices are replicated count among the D
    too, as far as they make ceil(n / D) smaller; to gather along them moves about what is then sent less. A batch axis
    that is sharded (experts) stays where it is, and nothing travels along it. Items of one shape are together if they
    are sharded along the same mesh axes, be it in other dimensions. A result is sharded as what it takes the place of.
    Outside of `jit` each call compiles there.

    Args:
      fn: from a tuple of stacks, one for each array of an item, and the operands, to as many stacks or fewer: each of
        the shape and dtype of the array in its place. It must compute each tensor along the first axis for itself.
      items: of each, arrays that hold equally many tensors.
      axes: of each array of each item. Batches are computed where the first array's is, and the others laid likewise.
      operands: pytrees of what else `fn` takes, whole on every device. `fn` must hold no traced array of its own: JAX
        knows only those that are handed to each device.
      max_bytes: of the stacks that are on a device at a time, at least one tensor of each; beyond, they are computed in
        rounds, each with its own collectives. On one device an item is not divided.
    """
    flat, structure = jax.tree.flatten(list(operands))
    places = [i for i, x in enumerate(flat) if isinstance(x, jax.Array)]  # numbers stay constants

    def given(stacks: Sequence[Array], *arrays: Array) -> tuple[Array, ...]:
        every = dict(enumerate(flat)) | dict(zip(places, arrays, strict=True))
        return tuple(fn(tuple(stacks), *structure.unflatten(every.values())))

    arrays = [flat[i] for i in places]
    meshes: dict = {}
    for i, item in enumerate(items):
        meshes.setdefault(explicit_mesh(item), []).append(i)
    found = {}
    for mesh, group in meshes.items():
        mine, mine_axes = [list(items[i]) for i in group], [list(axes[i]) for i in group]
        compute = _beside if mesh is None else partial(spread, mesh)
        found |= zip(group, compute(given, arrays, mine, mine_axes, max_bytes), strict=True)
    return [found[i] for i in range(len(items))]


def _beside(
    fn: Callable[..., tuple[Array, ...]],
    operands: Sequence[Array],
    items: Sequence[Sequence[Array]],
    axes: Sequence[Sequence[Axes]],
    most: int,
) -> list[list[Array]]:
    """As `map_stacks`, where no type says that an array is sharded."""
    stacks = [[as_matrices(x, a) for x, a in zip(*both, strict=True)] for both in zip(items, axes, strict=True)]
    traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((stacks, operands)))
    compute, parts = (jax.jit(fn), _parts) if traced else (fn, jnp.split)  # stacks of one shape share a trace
    found: dict[int, list[Array]] = {}
    for group in _together(stacks, most):
        joined = [jnp.concatenate(xs) if len(xs) > 1 else xs[0] for xs in zip(*[stacks[i] for i in group], strict=True)]
        ends = [sum(len(stacks[i][0]) for i in group[: n + 1]) for n in range(len(group) - 1)]
        results = [parts(y, ends) if ends else [y] for y in compute(joined, *operands)]
        for n, i in enumerate(group):
            places = zip(results, axes[i], items[i], strict=False)
            found[i] = [from_matrices(ys[n], a, x.shape) for ys, a, x in places]
    return [found[i] for i in range(len(items))]


def _parts(x: Array, ends: Sequence[int]) -> list[Array]:
    """As `jnp.split`. Each start is read from an array that XLA does not look into, so that parts of a size are taken,
    and used, by one kernel: as constants they would make a kernel each, and most of the time of compiling.
    """

    def part(start: int, end: int) -> Array:
        hidden = jax.lax.optimization_barrier(
            jnp.asarray(np.array([start, 0], np.int32))
        )  # two: one would be a constant
        return jax.lax.dynamic_slice_in_dim(x, hidden[0], end - start)

    return [part(*span) for span in pairwise((0, *ends, len(x)))]


def _together(stacks: list[list[Array]], most: int) -> list[list[int]]:
    """The places of the items that are computed as one: of the same shapes and dtypes, up to `most` bytes."""
    if not on_one_device() and not jax.sharding.get_abstract_mesh().are_all_axes_manual:
        return [[i] for i in range(len(stacks))]
    size = lambda i: sum(x.nbytes for x in stacks[i])
    groups: dict = {}
    for i, item in enumerate(stacks):
        bundles = groups.setdefault(tuple((x.dtype, x.shape[1:], manual_axes(x)) for x in item), [[]])
        if bundles[-1] and sum(map(size, bundles[-1])) + size(i) > most:
            bundles.append([])
        bundles[-1].append(i)
    return [bundle for bundles in groups.values() for bundle in bundles]


def factors(x: Array, axes: Axes, *, dtype: DTypeLike | None = None) -> list[Array]:
    """Zeros, d x d for each side of size d of the tensors in an array, with its batch axes before: where statistics of
    the sides are kept. Their rows are sharded along all mesh axes that the tensors are sharded along, whichever side
    of theirs lies there, if that divides d; else as their own side is.
    """
    made_of = [(i,) for i in axes.batch]
    along = {len(made_of): [i for i in range(x.ndim) if i not in axes.batch]}
    size = lambda side: math.prod(x.shape[i] for i in side)
    shape = lambda side: (*[x.shape[i] for i in axes.batch], size(side), size(side))
    zeros = lambda side: zeros_of_axes(x, [*made_of, side, ()], shape=shape(side), dtype=dtype, along=along)
    return [zeros(side) for side in axes.sides]


def factor_axes(axes: Axes) -> Axes:
    """The axes of each of the `factors`."""
    n = len(axes.batch)
    return Axes(tuple(range(n)), ((n,), (n + 1,)))

"""One computation for all matrices of a shape, or for all tensors with what is kept beside them."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from gradtx.linalg.axes import Axes, as_matrices, from_matrices
from gradtx.linalg.blocks import form_by_type
from gradtx.linalg.distributed import explicit_mesh, spread
from gradtx.placement import manual_axes, on_one_device

MOST = 2**26  # bytes of matrices that are stacked; beyond, a device is busy with fewer


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
    groups = _together(stacks, most)

    def together(stacks: list[list[Array]], operands: Sequence[Array]) -> list[list[Array]]:
        found: dict[int, list[Array]] = {}
        for group in groups:
            of_group: Any = zip(*[stacks[i] for i in group], strict=True)
            joined = [jnp.concatenate(xs) if len(xs) > 1 else xs[0] for xs in of_group]
            ends = [sum(len(stacks[i][0]) for i in group[: n + 1]) for n in range(len(group) - 1)]
            results = [parts(y, ends) if ends else [y] for y in compute(joined, *operands)]
            found |= {i: [ys[n] for ys in results] for n, i in enumerate(group)}
        return [found[i] for i in range(len(stacks))]

    def apart(stacks: list[list[Array]], operands: Sequence[Array]) -> list[list[Array]]:
        return [list(compute(item, *operands)) for item in stacks]

    if traced and len(groups) < len(stacks) and any(len(item) > 1 for item in stacks):
        # To a CPU, stacks of what is kept beside a gradient are copies: they would double what soap moves.
        results = jax.lax.platform_dependent(stacks, operands, cpu=apart, default=together)
    else:
        results = together(stacks, operands)
    return [
        [from_matrices(y, a, x.shape) for y, a, x in zip(*of_item, strict=False)]
        for of_item in zip(results, axes, items, strict=True)
    ]


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

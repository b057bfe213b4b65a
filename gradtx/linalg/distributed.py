"""Tensors whose blocks lie on several devices, each computed whole on one of them: which are computed together, where.

Types say where the blocks lie (on a mesh with Explicit axes). Then each device takes its share of the tensors of a
shape: it gets their other blocks from the others, computes, and sends the blocks of the results back. All of it is in
one `jax.shard_map`, so the collectives are those written here and in `travel.py`; none is left to XLA.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import AbstractMesh, AxisType, NamedSharding, PartitionSpec, reshard

from gradtx.linalg.blocks import Form, Share, as_blocks, axes_along, form_of, from_blocks, share_of
from gradtx.linalg.travel import Round
from gradtx.placement import manual_axes, spec_of

if TYPE_CHECKING:
    from gradtx.linalg.axes import Axes

Computation = Callable[..., tuple[Array, ...]]  # from a tuple of stacks, and operands


def explicit_mesh(arrays: Sequence[Array]) -> AbstractMesh | None:
    """The mesh of arrays whose types say how they lie there; None where types do not tell."""
    meshes = (jax.typeof(x).sharding.mesh for x in arrays)
    return next((mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types), None)


def spread(
    mesh: Any,
    fn: Computation,
    operands: Sequence[Array],
    items: Sequence[Sequence[Array]],
    axes: Sequence[Sequence["Axes"]],
    most: int,
) -> list[list[Array]]:
    """As `map_stacks`, of items on one mesh, each result sharded as what it takes the place of."""
    explicit = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    lying = [_one_batch(item, a, mesh.shape) for item, a in zip(items, axes, strict=True)]
    own = [[spec_of(axes_along(x)) for x in item] for item in items]
    placed = [[spec_of(spec) for spec in specs] for specs in lying]
    shares = [
        [share_of(x.shape, spec, a, mesh.shape) for x, spec, a in zip(*of_one, strict=True)]
        for of_one in zip(items, lying, axes, strict=True)
    ]
    kept = [{name for i in a[0].batch for name in specs[0][i]} for specs, a in zip(lying, axes, strict=True)]
    outer = [[manual_axes(x) for x in item] for item in items]
    outputs: list[int] = [0] * len(items)  # how many arrays `fn` makes of each
    compiled = jax.jit(fn)  # stacks of one shape share a trace

    def on_each(parts: list[list[Array]], operands: Sequence[Array]) -> list[list[Array]]:
        here = explicit.intersection(jax.sharding.get_abstract_mesh().manual_axes)  # not those that a `vmap` runs along
        sizes = {name: mesh.shape[name] for name in mesh.axis_names if name in here}
        groups: dict[Any, list[int]] = {}
        found = [list(item) for item in parts]
        for i, item in enumerate(items):
            if not any(x.size for x in item):
                outputs[i] = _outputs(fn, item, shares[i], operands)
                continue
            kind = [(s.sides, s.along, x.dtype, o) for s, x, o in zip(shares[i], item, outer[i], strict=True)]
            groups.setdefault((*kind, frozenset(kept[i])), []).append(i)
        for group in groups.values():
            group.sort(key=lambda i: [share.form for share in shares[i]])  # so that few slots have several forms
            blocks = [[as_blocks(x, a) for x, a in zip(parts[i], axes[i], strict=True)] for i in group]
            forms = [tuple(share.form for share in shares[i]) for i in group]
            free = {name: n for name, n in sizes.items() if n > 1 and name not in kept[group[0]]}
            results = _of_group(lambda *x: compiled(x, *operands), blocks, forms, shares[group[0]], free, most)
            for i, ys in zip(group, results, strict=True):
                outputs[i] = len(ys)
                for k, y in enumerate(ys):
                    found[i][k] = from_blocks(y, axes[i][k], parts[i][k].shape)
        return found  # with the arrays of which there is no result as they are

    @jax.jit  # outside of `jit`, one by one would take ten times as long
    def run(items: list[list[Array]], operands: list[Array]) -> list[list[Array]]:
        names = explicit if len(explicit) < len(mesh.axis_names) else set()  # none named: all that may be
        specs = (placed, PartitionSpec())
        mapped = jax.shard_map(on_each, mesh=mesh, in_specs=specs, out_specs=placed, axis_names=names)
        found = mapped([_all_laid(mesh, *pair) for pair in zip(items, placed, strict=True)], operands)
        return [_all_laid(mesh, *pair) for pair in zip(found, own, strict=True)]

    results = run([list(item) for item in items], list(operands))
    return [found[:count] for found, count in zip(results, outputs, strict=True)]


def _one_batch(item: Sequence[Array], axes: Sequence["Axes"], sizes: Mapping[str, int]) -> list[list[tuple[str, ...]]]:
    """How the arrays of an item are to lie: as they do, but with their batches as the first one's is.

    Mesh axes with one device are left out: by types an array differs along these too.
    """
    specs = [[tuple(n for n in names if sizes[n] > 1) for names in axes_along(x)] for x in item]
    batches = [form_of(x.shape, spec, a.batch, sizes) for x, spec, a in zip(item, specs, axes, strict=True)]
    for k, (x, a) in enumerate(zip(item, axes, strict=True)):
        if batches[k] == batches[0]:
            continue
        if [x.shape[i] for i in a.batch] != [item[0].shape[i] for i in axes[0].batch]:
            raise ValueError(
                f"arrays of one item have batches that are sharded differently: {batches[0]}, {batches[k]}"
            )
        first = [specs[0][i] for i in axes[0].batch]
        used = {name for names in first for name in names}
        specs[k] = [tuple(name for name in names if name not in used) for names in specs[k]]
        for i, names in zip(a.batch, first, strict=True):
            specs[k][i] = names
    return specs


def _all_laid(mesh: AbstractMesh, item: Sequence[Array], specs: Sequence[PartitionSpec]) -> list[Array]:
    """Arrays sharded as they are to be."""
    as_it_is = lambda x, spec: spec_of(axes_along(x)) == spec
    place = lambda x, spec: x if as_it_is(x, spec) else reshard(x, NamedSharding(mesh, spec))
    return [place(x, spec) for x, spec in zip(item, specs, strict=True)]


def _outputs(fn: Computation, item: Sequence[Array], shares: Sequence[Share], operands: Sequence[Array]) -> int:
    """How many arrays `fn` makes of an item that holds nothing, as of one that holds a tensor."""
    stacks = tuple(jax.ShapeDtypeStruct((1, *share.sides), x.dtype) for x, share in zip(item, shares, strict=True))
    return len(jax.eval_shape(fn, stacks, *operands))


def _of_group(
    fn: Computation,
    items: list[list[Array]],
    forms: list[tuple[Form, ...]],
    shares: Sequence[Share],
    sizes: Mapping[str, int],
    most: int,
) -> list[list[Array]]:
    """`fn` of tensors of the same shapes, whose blocks lie along the same mesh axes, in rounds of at most `most` bytes.

    Args:
      items: of each, the blocks in its arrays.
      sizes: of the mesh axes that the work may be divided along.
    """
    size = lambda names: math.prod(sizes[name] for name in names)
    used = {name for share in shares for name in share.along}
    along = tuple(name for name in sizes if name in used)
    others = [name for name in sizes if name not in used]
    ways = [names for n in range(len(others) + 1) for names in combinations(others, n)]

    def free(n: int) -> tuple[str, ...]:
        """The fewest of the devices that have the same blocks, among which to divide the work as far as it goes."""
        return min(ways, key=lambda names: (-(-n // (size(along) * size(names))), size(names)))

    counts = [len(blocks[0]) for blocks in items]
    names = free(sum(counts))
    elsewhere = [size(names) * size(along) // size(share.along) for share in shares]  # devices with the same blocks
    bytes_of = [math.prod(share.sides) * x.dtype.itemsize for share, x in zip(shares, items[0], strict=True)]
    bytes_of_one = sum(n * size for n, size in zip(elsewhere, bytes_of, strict=True))
    at_once = max(1, most // max(1, bytes_of_one)) * size(along) * size(names)
    found: list[list[list[Array]]] = [[] for _ in items]
    for pieces in _rounds(counts, at_once):
        kinds = [forms[i] for i, start, stop in pieces for _ in range(start, stop)]
        together = [_concatenated([items[i][k][start:stop] for i, start, stop in pieces]) for k in range(len(shares))]
        results = Round(kinds, shares, along, free(len(kinds)), sizes).computed(fn, together)
        ends = [sum(stop - start for _, start, stop in pieces[: n + 1]) for n in range(len(pieces) - 1)]
        divided = [jnp.split(y, ends) for y in results]
        for n, (i, *_) in enumerate(pieces):
            found[i].append([blocks[n] for blocks in divided])
    return [[_concatenated(list(blocks)) for blocks in zip(*parts, strict=True)] for parts in found]


def _rounds(counts: Sequence[int], at_once: int) -> Iterator[list[tuple[int, int, int]]]:
    """Of which item the blocks from where to where are in each round: as many as may be at once."""
    every = [(i, n) for i, count in enumerate(counts) for n in range(count)]
    for start in range(0, len(every), at_once):
        items = groupby(every[start : start + at_once], key=lambda place: place[0])
        spans = ((i, [n for _, n in places]) for i, places in items)
        yield [(i, numbers[0], numbers[-1] + 1) for i, numbers in spans]


def _concatenated(arrays: list[Array]) -> Array:
    return jnp.concatenate(arrays) if len(arrays) > 1 else arrays[0]

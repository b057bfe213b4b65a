"""Matrices whose parts lie on several devices, each computed whole on one of them: what travels, and how.

Types say where the parts lie (on a mesh with Explicit axes). Then each device takes its share of the matrices of a
shape: it gets their other parts from the others, computes, and sends the parts of the results back. All of it is in one
`jax.shard_map`, so the collectives are those written here; none is left to XLA.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations, groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, AxisType, PartitionSpec

from gradtx.placement import axes_of, manual_axes

if TYPE_CHECKING:
    from gradtx.linalg.matrices import Axes

# A part of a matrix: of each of its dimensions how many entries are here, and the mesh axes that the others are along.
Form = tuple[tuple[int, tuple[str, ...]], ...]


class Share(NamedTuple):
    """The matrices in one leaf, and what of them a device has."""

    axes: "Axes"  # rows and columns, so that there are at most as many rows
    matrix: tuple[int, int]  # rows and columns of the whole
    form: Form
    along: tuple[str, ...]  # the mesh axes that the matrix's parts lie along
    kept: tuple[str, ...]  # those that its batch is sharded along: no matrix crosses them


def explicit_mesh(x: Array) -> AbstractMesh | None:
    """The mesh of an array whose type says how it lies there; None where types do not tell."""
    mesh = jax.typeof(x).sharding.mesh
    return mesh if AxisType.Explicit in mesh.axis_types else None


def spread(
    given: Callable[..., tuple[Array, ...]],
    operands: Sequence[Array],
    items: Sequence[Sequence[Array]],
    item_axes: Sequence[Sequence["Axes"]],
    most: int,
) -> list[list[Array]]:
    """As `map_stacks`, of items on one mesh, each result sharded as what it takes the place of."""
    leaves, axes, dtypes = [x for (x,) in items], [a for (a,) in item_axes], [x.dtype for (x,) in items]
    fn = lambda x, *operands: given((x,), *operands)[0]
    mesh: Any = explicit_mesh(leaves[0])
    explicit = {name for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True) if kind == AxisType.Explicit}
    specs = [(*(spec := jax.typeof(x).sharding.spec), *[None] * (x.ndim - len(spec))) for x in leaves]
    outer = [manual_axes(x) for x in leaves]
    fn = jax.jit(fn)  # stacks of one shape share a trace

    def on_each(parts: list[Array], operands: Sequence[Array]) -> list[Array]:
        here = explicit.intersection(jax.sharding.get_abstract_mesh().manual_axes)  # not those that a `vmap` runs along
        sizes = {name: mesh.shape[name] for name in mesh.axis_names if name in here}
        shares = [_share(x.shape, spec, a, sizes) for x, spec, a in zip(leaves, specs, axes, strict=True)]
        groups: dict[Any, list[int]] = {}
        for i, (x, share) in enumerate(zip(leaves, shares, strict=True)):
            if x.size:
                groups.setdefault((share.matrix, share.along, share.kept, dtypes[i], outer[i]), []).append(i)
        found = dict(enumerate(parts))
        for group in groups.values():
            group.sort(key=lambda i: shares[i].form)  # so that few slots have several forms
            flat = [_as_blocks(parts[i], shares[i].axes).astype(dtypes[i]) for i in group]
            forms = [shares[i].form for i in group]
            blocks = _of_group(lambda x: fn(x, *operands), flat, forms, shares[group[0]], sizes, most)
            for i, block in zip(group, blocks, strict=True):
                found[i] = _from_blocks(block.astype(parts[i].dtype), shares[i].axes, parts[i].shape)
        return [found[i] for i in range(len(parts))]

    placed = [PartitionSpec(*spec) for spec in specs]
    names = explicit if len(explicit) < len(mesh.axis_names) else set()  # none named: all that may be
    mapped = jax.shard_map(on_each, mesh=mesh, in_specs=(placed, PartitionSpec()), out_specs=placed, axis_names=names)
    return [
        [x] for x in jax.jit(mapped)(list(leaves), list(operands))
    ]  # outside of `jit`, one by one would take ten times as long


def _share(shape: Sequence[int], spec: Sequence[Any], axes: "Axes", sizes: dict[str, int]) -> Share:
    def names(i: int) -> tuple[str, ...]:
        return tuple(name for name in axes_of(spec[i]) if sizes[name] > 1)

    def form(side: Sequence[int]) -> Form:
        merged: list[tuple[int, tuple[str, ...]]] = [(1, ())]
        for i in side:
            here = shape[i] // math.prod(sizes[name] for name in names(i))
            if not names(i):
                merged[-1] = (merged[-1][0] * here, merged[-1][1])
            elif merged[-1] == (1, ()):
                merged[-1] = (here, names(i))
            else:
                merged.append((here, names(i)))
        return tuple(merged)

    _, rows, columns = axes.sizes(shape)
    ways = [axes] if rows <= columns else []
    ways += [axes.transposed] if rows >= columns else []
    axes = min(ways, key=lambda a: form(a.rows) + form(a.columns))  # square ones lie the same way if they can
    used = {name for i in (*axes.rows, *axes.columns) for name in names(i)}
    kept = {name for i in axes.batch for name in names(i)}
    ordered = lambda some: tuple(name for name in sizes if name in some)
    matrix = (min(rows, columns), max(rows, columns))
    return Share(axes, matrix, form(axes.rows) + form(axes.columns), ordered(used), ordered(kept))


def _as_blocks(x: Array, axes: "Axes") -> Array:
    matrices = math.prod(x.shape[i] for i in axes.batch)
    return _shaped(x.transpose(axes.order), (matrices, x.size // matrices))


def _from_blocks(x: Array, axes: "Axes", shape: Sequence[int]) -> Array:
    order = axes.order
    return _shaped(x, [shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])


def _shaped(x: Array, shape: Sequence[int]) -> Array:
    """The array in another shape, two dimensions at a time: so types know where it lies along an axis of `jax.vmap`."""
    while x.ndim > 1:
        x = x.reshape(-1, *x.shape[2:])
    for i in range(1, len(shape)):
        x = x.reshape(*shape[:i], -1)
    return x


def _of_group(
    fn: Callable[[Array], Array], flat: list[Array], forms: list[Form], share: Share, sizes: dict[str, int], most: int
) -> list[Array]:
    """`fn` of matrices of one shape, whose blocks lie along the same mesh axes, in rounds of at most `most` bytes."""
    size = lambda names: math.prod(sizes[name] for name in names)
    others = [name for name in sizes if name not in share.along + share.kept and sizes[name] > 1]
    ways = [names for n in range(len(others) + 1) for names in combinations(others, n)]
    bytes_of_one = math.prod(share.matrix) * flat[0].dtype.itemsize

    def free(n: int) -> tuple[str, ...]:
        """The fewest of the devices that have the same blocks, among which to divide the work as far as it goes."""
        return min(ways, key=lambda names: (-(-n // (size(share.along) * size(names))), size(names)))

    names = free(sum(map(len, flat)))
    at_once = max(1, most // (bytes_of_one * size(names))) * size(share.along) * size(names)
    found: list[list[Array]] = [[] for _ in flat]
    for pieces in _rounds([len(x) for x in flat], at_once):
        blocks = [flat[i][start:stop] for i, start, stop in pieces]
        kinds = [forms[i] for i, start, stop in pieces for _ in range(start, stop)]
        together = jnp.concatenate(blocks) if len(blocks) > 1 else blocks[0]
        result = _of_round(fn, together, kinds, share, free(len(kinds)), sizes)
        ends = [sum(map(len, blocks[: n + 1])) for n in range(len(blocks) - 1)]
        for (i, *_), block in zip(pieces, jnp.split(result, ends), strict=True):
            found[i].append(block)
    return [jnp.concatenate(blocks) if len(blocks) > 1 else blocks[0] for blocks in found]


def _rounds(counts: Sequence[int], at_once: int) -> Iterator[list[tuple[int, int, int]]]:
    """Of which leaf the blocks from where to where are in each round: as many as may be at once."""
    every = [(i, n) for i, count in enumerate(counts) for n in range(count)]
    for start in range(0, len(every), at_once):
        leaves = groupby(every[start : start + at_once], key=lambda place: place[0])
        spans = ((i, [n for _, n in places]) for i, places in leaves)
        yield [(i, numbers[0], numbers[-1] + 1) for i, numbers in spans]


def _of_round(
    fn: Callable[[Array], Array],
    blocks: Array,
    forms: list[Form],
    share: Share,
    free: tuple[str, ...],
    sizes: dict[str, int],
) -> Array:
    """`fn` of some matrices. Each device has a block of each; device d computes those in the slots (s, d) of a table.

    What is left of the table is filled with the first matrices again, so that `fn` sees nothing but matrices.
    """
    size = lambda names: math.prod(sizes[name] for name in names)
    along, n = share.along, len(blocks)
    alone = n == 1 and bool(along)  # one matrix: to gather it everywhere moves half as much as there and back
    devices = 1 if alone else size(along) * size(free)
    slots = -(-n // devices)
    table = [[forms[(slot * devices + device) % n] for device in range(devices)] for slot in range(slots)]
    place = lax.axis_index(free + along) if devices > 1 else 0
    convert = lambda x, change: _by_form(x, table, place, change)

    repeated = jnp.tile(blocks, (-(-slots * devices // n), 1)) if slots * devices > n else blocks
    x = _shaped(repeated[: slots * devices], (slots, size(free), 1 if alone else size(along), blocks.shape[1]))
    x = lax.dynamic_index_in_dim(x, lax.axis_index(free), 1, keepdims=False) if free else x[:, 0]
    if alone:
        x = lax.all_gather(x, along, axis=1, tiled=True)
    elif along:
        x = lax.all_to_all(x, along, 1, 1, tiled=True)
    x = convert(x, lambda x, form: _joined(x, form, share, sizes))
    x = convert(fn(x), lambda x, form: _divided(x, form, share, sizes))
    if alone:
        x = lax.dynamic_slice_in_dim(x, lax.axis_index(along), 1, 1)
    elif along:
        x = lax.all_to_all(x, along, 1, 1, tiled=True)
    if free:
        x = lax.all_gather(x, free, axis=1, to="invarying")
    return _shaped(x, (slots * devices, blocks.shape[1]))[:n]


def _by_form(x: Array, table: list[list[Form]], place: Any, change: Callable[[Array, Form], Array]) -> Array:
    """`change` of each slot, by the form of the matrix that this device, at this place, has in it."""
    found, start = [], 0
    for forms, run in groupby(table, key=lambda slot: sorted(set(slot))):
        slots = list(run)
        some = x[start : start + len(slots)]
        start += len(slots)
        result = change(some, forms[0])
        for form in forms[1:]:
            mine = jnp.array([[other == form for other in slot] for slot in slots])[:, place]
            result = jnp.where(mine.reshape(-1, *[1] * (result.ndim - 1)), change(some, form), result)
        found.append(result)
    return jnp.concatenate(found) if len(found) > 1 else found[0]


def _joined(x: Array, form: Form, share: Share, sizes: dict[str, int]) -> Array:
    """Matrices of their blocks: slots, devices, entries of a block."""
    x = _shaped(x, (len(x), *[sizes[name] for name in share.along], *[here for here, _ in form]))
    return _shaped(x.transpose(_order(form, share)), (len(x), *share.matrix))


def _divided(x: Array, form: Form, share: Share, sizes: dict[str, int]) -> Array:
    """The blocks of matrices: the inverse of `_joined`."""
    x = _shaped(x, (len(x), *[n for here, names in form for n in (*[sizes[name] for name in names], here)]))
    order = _order(form, share)
    devices = math.prod(sizes[name] for name in share.along)
    x = x.transpose([order.index(i) for i in range(len(order))])
    return _shaped(x, (len(x), devices, math.prod(here for here, _ in form)))


def _order(form: Form, share: Share) -> list[int]:
    """Where each dimension of a matrix comes from in its blocks: what lies along mesh axes, and what is here."""
    order = [0]
    for i, (_, names) in enumerate(form):
        order += [1 + share.along.index(name) for name in names] + [1 + len(share.along) + i]
    return order

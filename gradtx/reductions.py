"""Sums of sharded arrays over some of their axes, the sums of many arrays in one collective.

Where types tell how arrays are sharded (on a mesh with Explicit axes), each device adds what it holds, and what the
devices found travels in one vector. Elsewhere `jnp.sum` leaves it to XLA, sum by sum.
"""

from collections.abc import Generator, Iterable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import AbstractMesh, PartitionSpec

from gradtx.collectives import first_alone
from gradtx.placement import axes_of, manual_axes

Part = tuple[Array, int | Sequence[int] | None]  # an array, and the axes over which it is summed, as of `jnp.sum`
Result = TypeVar("Result")
Asking = Generator[list[Part], Sequence[Array], Result]  # a formula that asks for sums before it goes on


def summed(*parts: Part) -> Asking[tuple[Array, ...]]:
    """Within a formula for one leaf, `a, b = yield from summed((x, axes), (y, axes))`: the sums of x and y over axes.

    They are `jnp.sum`, unless a sum goes across devices and types tell so. Then the formula waits until those of the
    other leaves have come as far, and all that they ask for is summed together. `formulas.alike` carries that out.
    """
    asked = [i for i, part in enumerate(parts) if crosses_devices(*part)]
    answers = dict(zip(asked, (yield [parts[i] for i in asked]), strict=True)) if asked else {}
    return tuple(answers[i] if i in answers else jnp.sum(x, axes) for i, (x, axes) in enumerate(parts))


def occurs(holds: Array) -> Asking[Array]:
    """Within a formula, `yield from`: whether any entry of an array of bools is true."""
    if not crosses_devices(holds):
        return jnp.any(holds)
    (number,) = yield from summed((holds.astype(jnp.float32), None))  # a large integer would turn negative
    return number > 0


def crosses_devices(x: Array, axes: int | Sequence[int] | None = None) -> bool:
    """Whether the type of an array tells that its sum over some axes is of parts that lie on several devices."""
    spec = jax.typeof(x).sharding.spec
    return x.size > 0 and not spec.unreduced and any(i < len(spec) and spec[i] for i in _over(x, axes))


def together(parts: Sequence[Part]) -> list[Array]:
    """`jnp.sum(x, axes)` of each pair (x, axes), accumulated in float32 or wider.

    Sums across devices, where types tell of them, take one collective for all that are over the same mesh axes and
    leave the same ones sharded. Those that leave a scalar take one for all, whatever their mesh axes.
    """
    sums = {i: jnp.sum(x, axes) for i, (x, axes) in enumerate(parts) if not crosses_devices(x, axes)}
    meshes: dict[AbstractMesh, list[int]] = {}
    for i, (x, _) in enumerate(parts):
        if i not in sums:
            meshes.setdefault(jax.typeof(x).sharding.mesh, []).append(i)
    for mesh, places in meshes.items():
        found = _across_devices(mesh, [parts[i][0] for i in places], [_over(*parts[i]) for i in places])
        sums.update(zip(places, found, strict=True))
    return [sums[i] for i in range(len(parts))]


def _across_devices(mesh: AbstractMesh, arrays: list[Array], axes: list[tuple[int, ...]]) -> list[Array]:
    specs = [(*(spec := jax.typeof(x).sharding.spec), *[None] * (x.ndim - len(spec))) for x in arrays]
    crossed = [_names(spec[i] for i in over) for spec, over in zip(specs, axes, strict=True)]
    left = [[spec[i] for i in range(len(spec)) if i not in over] for spec, over in zip(specs, axes, strict=True)]
    everywhere = frozenset().union(*[names for names, rest in zip(crossed, left, strict=True) if not rest])
    kept = [_names(rest) for rest in left]

    def of_shards(shards: list[Array]) -> list[Array]:
        groups: dict[Any, list[tuple[int, Array]]] = {}
        for i, x in enumerate(shards):
            total, names = jnp.sum(x, axes[i], dtype=_wide(x)), crossed[i]
            if not left[i]:
                total, names = first_alone(total, sorted(everywhere - names)), everywhere
            outer = manual_axes(arrays[i])  # of a `shard_map` around this one: what is equal along them stays so
            groups.setdefault((names, kept[i], outer, total.dtype), []).append((i, total))
        sums = {}
        for (names, *_), group in groups.items():
            vector = lax.psum(jnp.concatenate([jnp.ravel(total) for _, total in group]), tuple(sorted(names)))
            start = 0
            for i, total in group:
                sums[i] = lax.slice_in_dim(vector, start, start + total.size).reshape(total.shape)
                start += total.size
        return [sums[i].astype(jax.eval_shape(jnp.sum, x).dtype) for i, x in enumerate(shards)]

    return jax.shard_map(
        of_shards,
        mesh=mesh,
        axis_names=set().union(*map(_names, specs)),
        in_specs=([PartitionSpec(*spec) for spec in specs],),
        out_specs=[PartitionSpec(*rest) for rest in left],
    )(arrays)


def _over(x: Array, axes: int | Sequence[int] | None) -> tuple[int, ...]:
    axes = range(x.ndim) if axes is None else (axes,) if isinstance(axes, int) else axes
    return tuple(i % x.ndim for i in axes)


def _names(spec: Iterable[Any]) -> frozenset:
    """The mesh axes that a part of a PartitionSpec names."""
    return frozenset(name for entry in spec for name in axes_of(entry))


def _wide(x: Array) -> Any:
    """The dtype to accumulate in; None for that of `jnp.sum`."""
    narrow = jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32
    return jnp.float32 if narrow else None

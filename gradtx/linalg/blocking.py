"""An array cut into blocks: each side of the tensors that it holds into parts of one length, the last one padded."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from gradtx.linalg.axes import Axes, factors
from gradtx.placement import axes_of, in_place_of, laid_like, sharding_of, zeros_of_axes


def merged(shape: Sequence[int], largest: int, *, least: int = 1, last: bool = False) -> Axes:
    """The axes of one tensor, neighbours taken as one side while their product is at most `largest`. Axes of length 1
    are no sides; without any other all are one.

    Args:
      least: no more are joined where so many sides are left.
      last: join from the last axis on; else from the first.
    """
    long = [i for i in range(len(shape)) if shape[i] != 1]
    if not long:
        return Axes((), (tuple(range(len(shape))),))
    order = long[::-1] if last else long
    sides = [[order[0]]]
    for done, i in enumerate(order[1:], start=1):
        joined = math.prod(shape[j] for j in sides[-1]) * shape[i]
        if len(sides) + len(order) - done > least and joined <= largest:
            sides[-1].append(i)
        else:
            sides.append([i])
    ordered = tuple(tuple(sorted(side)) for side in sides)
    short = tuple(i for i in range(len(shape)) if shape[i] == 1)
    return Axes(short, ordered[::-1] if last else ordered)


def split(x: Array, axes: Axes, largest: int) -> Array:
    """The array with its long sides in blocks: the batch, and for each side its blocks and what is in one.

    A side of at most `largest` entries stays one dimension; if all are such, the array is as it was. What is left of a
    last block is 0.

    A device has whole blocks where their number allows. Where types tell how the array is sharded, axes are gathered
    along which it is not, or along which blocks are padded.
    """
    if not _is_cut(x.shape, axes, largest):
        return x
    cuts, over = _cuts(x, axes, largest), _padding(x.shape, axes, largest)
    gathered = [i for cut, side, n in zip(cuts, axes.sides, over, strict=True) if n or not cut for i in side]
    batch, sides = [x.shape[i] for i in axes.batch], _lengths(x.shape, axes)
    y = _gathered(x, gathered).transpose(axes.order).reshape(*batch, *sides)
    y = jnp.pad(y, [(0, 0)] * len(batch) + [(0, n) for n in over]) if any(over) else y
    parts = [(_blocks(n, largest), largest) if n > largest else (n,) for n in sides]
    for i in range(len(parts) - 1, -1, -1):  # one at a time: types do not tell where an array lies after several
        at = len(batch) + i
        y = y.reshape(*y.shape[:at], *parts[i], *y.shape[at + 1 :])
    return _laid_as(y, x, _made_of(x, axes, largest))


def join(y: Array, axes: Axes, largest: int, like: Array) -> Array:
    """The inverse of `split`, sharded as the array that was split."""
    if not _is_cut(like.shape, axes, largest):
        return y
    over, batch, sides = (
        _padding(like.shape, axes, largest),
        [like.shape[i] for i in axes.batch],
        _lengths(like.shape, axes),
    )
    blocked = block_axes(like.shape, axes, largest)
    padded = [i for (side,), n in zip(blocked.sides, over, strict=True) if n for i in (side - 1, side)]
    y = _gathered(y, padded)
    for i, (n, more) in enumerate(zip(sides, over, strict=True)):
        at = len(batch) + i
        y = y.reshape(*y.shape[:at], n + more, *y.shape[at + 1 + (n > largest) :])
    y = y[(..., *(slice(n) for n in sides))] if any(over) else y
    order = axes.order
    y = y.reshape([like.shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])
    return laid_like(y, like)


def block_axes(shape: Sequence[int], axes: Axes, largest: int) -> Axes:
    """The axes of a `split` array: each block is a tensor of its own."""
    if not _is_cut(shape, axes, largest):
        return axes
    place = len(axes.batch)
    batch, sides = list(range(place)), []
    for n in _lengths(shape, axes):
        if n > largest:
            batch.append(place)
            place += 1
        sides.append((place,))
        place += 1
    return Axes(tuple(batch), tuple(sides))


def block_factors(x: Array, axes: Axes, largest: int, dtype: DTypeLike) -> list[Array]:
    """Zeros, d x d for each side of each block: as `matrices.factors` of the `split` array."""
    if not _is_cut(x.shape, axes, largest):
        return factors(x, axes, dtype=dtype)
    blocked, made_of = block_axes(x.shape, axes, largest), _made_of(x, axes, largest)
    sizes = [x.shape[i] for i in axes.batch]
    for n in _lengths(x.shape, axes):
        sizes += [_blocks(n, largest), largest] if n > largest else [n]
    before = [made_of[i] for i in blocked.batch]
    return [
        zeros_of_axes(
            x, [*before, made_of[i], ()], shape=[*[sizes[j] for j in blocked.batch], sizes[i], sizes[i]], dtype=dtype
        )
        for (i,) in blocked.sides
    ]


def identities(zeros: Array) -> Array:
    """Identity matrices in the place of zeros, and where those lie."""
    unit = jnp.eye(zeros.shape[-1], dtype=zeros.dtype)
    return in_place_of(zeros, unit[(None,) * (zeros.ndim - 2)])


def _is_cut(shape: Sequence[int], axes: Axes, largest: int) -> bool:
    return any(n > largest for n in _lengths(shape, axes))


def _lengths(shape: Sequence[int], axes: Axes) -> tuple[int, ...]:
    return axes.sizes(shape)[1:]


def _blocks(n: int, largest: int) -> int:
    return -(-n // largest)


def _padding(shape: Sequence[int], axes: Axes, largest: int) -> list[int]:
    return [_blocks(n, largest) * largest - n if n > largest else 0 for n in _lengths(shape, axes)]


def _cuts(x: Array, axes: Axes, largest: int) -> list[bool]:
    """Of each side, whether it can stay sharded: it is one axis, and blocks can be divided among the devices."""
    place = sharding_of(x)
    sharding = jax.typeof(x).sharding if place is None else place
    if not isinstance(sharding, NamedSharding):
        return [True] * len(axes.sides)
    spec = (*sharding.spec, *[None] * (x.ndim - len(sharding.spec)))
    parts = [math.prod(sharding.mesh.shape[name] for name in axes_of(entry)) for entry in spec]
    stays = lambda side, n: len(side) == 1 and (n <= largest or _blocks(n, largest) % parts[side[0]] == 0)
    whole = lambda side: all(parts[i] == 1 for i in side)
    sides = zip(axes.sides, _lengths(x.shape, axes), strict=True)
    return [whole(side) or stays(side, n) for side, n in sides]


def _made_of(x: Array, axes: Axes, largest: int) -> list[tuple[int, ...]]:
    """Of each dimension of the `split` array the axis that it is sharded as, if any."""
    found = [(i,) for i in axes.batch]
    for side, n, stays in zip(axes.sides, _lengths(x.shape, axes), _cuts(x, axes, largest), strict=True):
        one = side if len(side) == 1 and stays else ()
        found += [one, ()] if n > largest else [one]
    return found


def _gathered(x: Array, axes: Sequence[int]) -> Array:
    """The array whole along some axes, where its type says that it is sharded."""
    sharding = jax.typeof(x).sharding
    if not any(i < len(sharding.spec) and sharding.spec[i] for i in axes):
        return x
    kept = [None if i in axes else entry for i, entry in enumerate(sharding.spec)]
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec(*kept)))


def _laid_as(y: Array, x: Array, made_of: Sequence[tuple[int, ...]]) -> Array:
    """The array sharded along each dimension as the axis of another that it is made of, if that one's type tells."""
    sharding = jax.typeof(x).sharding
    if not any(sharding.spec):
        return y
    spec = (*sharding.spec, *[None] * (x.ndim - len(sharding.spec)))
    entries = [spec[group[0]] if group else None for group in made_of]
    return jax.sharding.reshard(y, NamedSharding(sharding.mesh, PartitionSpec(*entries)))

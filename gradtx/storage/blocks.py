"""Blocks of the last axis, each with a scale of its own."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding

from gradtx.placement import axes_of, laid_like, sharding_of, spec_of, zeros_of_axes


def width(length: int, block: int) -> int:
    """Entries of a block of an axis: at most `block`, and so many that blocks of one width fill the axis, if they can.

    Where only blocks of less than half of the width would, the last one is filled up.
    """
    fewest = math.ceil(length / block)
    fitting = next((n for n in range(fewest, 2 * fewest + 1) if length % n == 0), None)
    return block if fitting is None else length // fitting


def count(length: int, block: int) -> int:
    """Blocks of an axis."""
    return math.ceil(length / width(length, block))


def shrink(x: Any, block: int) -> bool:
    """Whether a byte for each entry and 4 for each block are fewer than an array, or a shape with a dtype, has."""
    if not x.size or not x.shape:
        return False
    length = x.shape[-1]
    return length + 4 * count(length, block) < length * x.dtype.itemsize


def scales(x: Any, block: int) -> Array:
    """Zeros for a scale of each block of an array like `x`, float32 `[..., blocks]`, sharded as the array is."""
    last = (x.ndim - 1,) if _blocks_are_whole(x, sharding_of(x) or jax.typeof(x).sharding, block) else ()
    axes = [*((i,) for i in range(x.ndim - 1)), last]
    return zeros_of_axes(x, axes, shape=(*x.shape[:-1], count(x.shape[-1], block)), dtype=jnp.dtype("float32"))


def divided(x: Array, block: int) -> Array:
    """`[..., length]` as `[..., blocks, width]`, filled up with zeros."""
    x = _divisible(x, block)
    length, each = x.shape[-1], width(x.shape[-1], block)
    blocks = math.ceil(length / each)
    if blocks * each > length:
        x = jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, blocks * each - length)])
    return x.reshape(*x.shape[:-1], blocks, each)


def joined(x: Array, like: Array) -> Array:
    """The inverse: `[..., blocks, width]` as `[..., length]`, laid like an array of that shape."""
    x = x.reshape(*x.shape[:-2], x.shape[-2] * x.shape[-1])
    return laid_like(x[..., : like.shape[-1]], like)


def _divisible(x: Array, block: int) -> Array:
    """The array, its last axis whole on each device where blocks would lie on two of them."""
    sharding = jax.typeof(x).sharding
    if _blocks_are_whole(x, sharding, block):
        return x
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, spec_of(map(axes_of, sharding.spec[: x.ndim - 1]))))


def _blocks_are_whole(x: Any, sharding: Any, block: int) -> bool:
    """Whether every block of an array lies on one device, as far as is known."""
    spec: Any = getattr(sharding, "spec", ())
    if len(spec) < x.ndim:
        return True
    devices = math.prod(sharding.mesh.shape[name] for name in axes_of(spec[-1]))
    return count(x.shape[-1], block) % devices == 0

"""One function of a batch, evaluated on one part of it after another."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.microbatching.accumulators import AccumulationType, accumulate
from gradtx.value import known


def microbatch(
    fun: Callable,
    argnums: int | Sequence[int],
    microbatch_size: int | None,
    accumulator: Any = AccumulationType.SUM,
    *,
    argnames: str | Sequence[str] = (),
    in_axes: int | Sequence[int] = 0,
    num_real_microbatches: int | Array | None = None,
) -> Callable:
    """The function `fun` of a batch, evaluated on one part of it after another, and the results joined.

    It needs the memory of one part. Part i of n holds the entries i, i + n, i + 2 n, ... of the batch, so that each is
    divided over devices as the batch is.

    Args:
      fun: a function of which some arguments have an axis for the batch: arrays, or trees of them.
      argnums: which positional ones.
      microbatch_size: the entries of a part; it must divide the batch. None: `fun` itself is returned.
      accumulator: how results are joined: an `AccumulationType`, an `Accumulator`, or a tree of them like what `fun`
        returns, or a prefix of one.
      argnames: which keyword ones.
      in_axes: which axis the batch has: one number, or one for each of `argnums`, then `argnames`.
      num_real_microbatches: how many parts are evaluated, the first ones. It may be known only in the program, so that
        smaller batches compile nothing; then there are no derivatives in reverse mode.

    Returns:
      A function of the same arguments. In reverse mode it has derivatives; wrap `fun` in `jax.checkpoint` to keep the
      memory small in them too.

    Differs from Optax: sums and means are computed in float32 or wider and rounded once, at the end; bools are counted,
      not joined by "or"; negative axes are axes; there are no more parts than there are.
    """
    if microbatch_size is None:
        return fun
    check_size("microbatch", microbatch_size)
    numbers = (argnums,) if isinstance(argnums, int) else tuple(argnums)
    names = (argnames,) if isinstance(argnames, str) else tuple(argnames)
    places = (*numbers, *names)
    axes = (in_axes,) * len(places) if isinstance(in_axes, int) else tuple(in_axes)
    if len(axes) != len(places):
        raise ValueError(f"`microbatch`: in_axes must be one number, or one for each of {places}, got {in_axes!r}.")

    @functools.wraps(fun)
    def evaluated_in_parts(*args: Any, **kwargs: Any) -> Any:
        given = {place: args[place] if isinstance(place, int) else kwargs[place] for place in places}
        parts, part = divide("microbatch", list(given.values()), axes, microbatch_size)

        def on_part(i: Any) -> Any:
            now = dict(zip(places, part(i), strict=True))
            positional = [now.get(n, x) for n, x in enumerate(args)]
            return fun(*positional, **{name: now.get(name, x) for name, x in kwargs.items()})

        return accumulate(on_part, accumulator, parts, evaluated("microbatch", num_real_microbatches, parts))

    return evaluated_in_parts


def check_size(owner: str, size: Any) -> None:
    """Raises unless it is a whole number of at least 1."""
    if not isinstance(size, int | np.integer) or size < 1:
        raise ValueError(f"`{owner}`: microbatch_size must be a whole number of at least 1, or None, got {size!r}.")


def evaluated(owner: str, number: Any, parts: int) -> Any:
    """How many of the parts are evaluated, if that is the number asked for; None asks for all."""
    if known(number):
        number = number.item()
    if isinstance(number, int) and not 0 <= number <= parts:
        raise ValueError(f"`{owner}`: num_real_microbatches must be from 0 to the {parts} there are, got {number}.")
    return parts if number is None else number


def divide(owner: str, trees: list, axes: Sequence[int], size: int) -> tuple[int, Callable[[Any], list]]:
    """The number of parts of that size that a batch has, and a function from a part's index to the part."""
    shapes = [(jnp.shape(x), axis) for tree, axis in zip(trees, axes, strict=True) for x in jax.tree.leaves(tree)]
    for shape, axis in shapes:
        if not -len(shape) <= axis < len(shape):
            raise ValueError(f"`{owner}`: an argument of shape {shape} has no axis {axis} for the batch.")
    lengths = {shape[axis] for shape, axis in shapes}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"`{owner}`: the arguments must have batches of one size, at least 1, got {sorted(lengths)}.")
    (length,) = lengths
    if length % size:
        raise ValueError(f"`{owner}`: the batch of {length} must be divisible by microbatch_size, {size}.")
    split = [reshape_batch_axis(tree, size, axis) for tree, axis in zip(trees, axes, strict=True)]

    def part(i: Any) -> list:
        def take(x: Array, axis: int) -> Array:
            return jax.lax.dynamic_index_in_dim(x, i, axis if axis >= 0 else axis - 1, keepdims=False)

        return [jax.tree.map(lambda x, axis=axis: take(x, axis), tree) for tree, axis in zip(split, axes, strict=True)]

    return length // size, part


def reshape_batch_axis(tree: Any, microbatch_size: int, axis: int = 0) -> Any:
    """Divides an axis of each array in two, in its place: parts, and entries of a part.

    With n parts, entry j of part i is entry j n + i of the axis. So the entries of a part are divided over devices as
    the axis was, and the parts are not divided.

    Args:
      tree: arrays.
      microbatch_size: the entries of a part; it must divide the axis.
      axis: which; negative from the end.
    """

    def leaf(x):
        x = jnp.asarray(x)
        at = axis % x.ndim
        if x.shape[at] % microbatch_size:
            raise ValueError(
                f"`reshape_batch_axis`: the axis of {x.shape[at]} must be divisible by microbatch_size, "
                f"{microbatch_size}."
            )
        parts = x.shape[at] // microbatch_size
        shape = (*x.shape[:at], microbatch_size, parts, *x.shape[at + 1 :])
        return jnp.swapaxes(jnp.reshape(x, shape, out_sharding=_divided(x, at, microbatch_size)), at, at + 1)

    return jax.tree.map(leaf, tree)


def _divided(x: Any, axis: int, size: int) -> NamedSharding | None:
    """The sharding of an explicitly sharded array after an axis was divided in two."""
    sharding = jax.typeof(x).sharding
    if not sharding.mesh.are_all_axes_explicit or sharding.mesh.empty:
        return None
    spec = [*sharding.spec, *[None] * (x.ndim - len(sharding.spec))]
    shards = x.shape[axis] // sharding.shard_shape(x.shape)[axis]
    if size % shards:
        raise ValueError(f"`reshape_batch_axis`: microbatch_size, {size}, must be divisible by the {shards} shards.")
    return NamedSharding(sharding.mesh, PartitionSpec(*spec[: axis + 1], None, *spec[axis + 1 :]))

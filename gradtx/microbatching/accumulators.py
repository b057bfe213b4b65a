"""How what a function returns for each part of a batch becomes one result."""

import dataclasses
import enum
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.leafwise import wide_dtype


class AccumulationType(enum.Enum):
    """What becomes of the results of the parts. Sums and means are computed in float32 or wider, then rounded once.

    Bools and integers narrower than 32 bits are summed in 32, and stay so.
    """

    MEAN = enum.auto()  # their sum, divided by the number of parts, also of those that are left out
    SUM = enum.auto()
    RUNNING_MEAN = enum.auto()  # their sum, divided by the number of parts that were evaluated
    CONCAT = enum.auto()  # all of them along the first axis, in the order of the batch; zeros for those left out


@dataclasses.dataclass(frozen=True)
class Accumulator:
    """One's own way to join the results of the parts, each a tree:

        carry = init(shapes of x_0);    carry = update(carry, x_i, i) for each i;    result = finalize(carry)

    Args:
      init: from the `jax.ShapeDtypeStruct`s of one result to the first carry.
      update: from carry, result and index to the next carry, of the same shapes and dtypes.
      finalize: from the last carry to what is returned.
      aggregate: from the results of single examples, along a first axis, to that of a part; for `micro_vmap`.
    """

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], Any]
    finalize: Callable[[Any], Any]
    aggregate: Callable[[Any], Any]


def accumulate(fun: Callable, accumulators: Any, parts: int, evaluated: Any, dtypes: Any = None) -> Any:
    """Joins `fun(0)`, ..., `fun(evaluated - 1)`, of which there might be `parts`.

    Args:
      evaluated: what is known only in the program counts as the nearest number from 0 to `parts`.
      accumulators: a tree of `AccumulationType`s and `Accumulator`s, or a prefix of one, like what `fun` returns.
      dtypes: a tree like that, of the dtypes of what is returned, where they are others than those of `fun`.
    """
    evaluated = evaluated if isinstance(evaluated, int) else jnp.clip(evaluated, 0, parts)
    shapes = jax.eval_shape(fun, 0)
    pairs = divided(accumulators, shapes)
    ways = [_way(kind, parts, evaluated) for kind, _ in pairs]

    def step(i, carries):
        results = [x for _, x in divided(accumulators, jax.tree.map(jnp.asarray, fun(i)))]
        return [way.update(carry, x, i) for way, carry, x in zip(ways, carries, results, strict=True)]

    start = [way.init(x) for way, (_, x) in zip(ways, pairs, strict=True)]
    carries = jax.lax.fori_loop(0, evaluated, step, start)
    joined = [way.finalize(carry) for way, carry in zip(ways, carries, strict=True)]
    return rounded(accumulators, joined, shapes if dtypes is None else dtypes)


def aggregate(accumulators: Any, results: Any) -> Any:
    """Joins the results of single examples, which have a first axis for them; sums are float32 or wider."""
    pairs = divided(accumulators, results)
    return jax.tree.unflatten(jax.tree.structure(accumulators), [_way(kind, 1, 1).aggregate(x) for kind, x in pairs])


def rounded(accumulators: Any, joined: list, dtypes: Any) -> Any:
    """What was joined for each leaf of `accumulators`, in their tree; floating numbers back in their own dtypes."""

    def cast(x, like):
        return x.astype(like.dtype) if jnp.issubdtype(like.dtype, jnp.inexact) else x

    finished = [
        x if isinstance(kind, Accumulator) else jax.tree.map(cast, x, like)
        for x, (kind, like) in zip(joined, divided(accumulators, dtypes), strict=True)
    ]
    return jax.tree.unflatten(jax.tree.structure(accumulators), finished)


def divided(accumulators: Any, results: Any) -> list[tuple[Any, Any]]:
    """Each accumulator, and the part of the results that it is for."""
    kinds, structure = jax.tree.flatten(accumulators)
    try:
        return list(zip(kinds, structure.flatten_up_to(results), strict=True))
    except ValueError as error:
        found = jax.tree.structure(results)
        raise ValueError(
            f"accumulator must be like what the function returns, or a prefix: {error}; got {found}"
        ) from None


def _way(kind: Any, parts: int, evaluated: Any) -> Accumulator:
    if isinstance(kind, Accumulator):
        return kind
    if kind is AccumulationType.SUM:
        return _sum(lambda total: total)
    if kind is AccumulationType.MEAN:
        return _sum(lambda total: total / parts, mean=True)
    if kind is AccumulationType.RUNNING_MEAN:
        return _sum(lambda total: total / jnp.maximum(evaluated, 1).astype(total.dtype), mean=True)
    if kind is AccumulationType.CONCAT:
        return _concatenation(parts)
    raise ValueError(f"accumulator must be made of `AccumulationType`s and `Accumulator`s, got {kind!r}.")


def _sum(finish: Callable, mean: bool = False) -> Accumulator:
    join = partial(jnp.mean if mean else jnp.sum, axis=0)
    return Accumulator(
        init=lambda shapes: jax.tree.map(lambda x: jnp.zeros_like(x, dtype=_dtype(x, mean)), shapes),
        update=lambda carry, new, _: jax.tree.map(lambda c, x: c + x.astype(c.dtype), carry, new),
        finalize=lambda carry: jax.tree.map(finish, carry),
        aggregate=lambda results: jax.tree.map(lambda x: join(x, dtype=_dtype(x, mean)), results),
    )


def _dtype(x: Any, mean: bool) -> Any:
    """That of the sum."""
    if jnp.issubdtype(x.dtype, jnp.inexact):
        return wide_dtype(x)
    if mean:
        raise ValueError(
            f"the mean of {x.dtype.name} numbers was asked for: MEAN and RUNNING_MEAN are for floating ones."
        )
    if x.dtype == bool:
        return jnp.int32
    narrow = jnp.iinfo(x.dtype).bits < 32
    return x.dtype if not narrow else jnp.uint32 if jnp.issubdtype(x.dtype, jnp.unsignedinteger) else jnp.int32


def _concatenation(parts: int) -> Accumulator:
    def put(carry: Array, new: Array, i: Any) -> Array:
        return jax.lax.dynamic_update_index_in_dim(carry, new, i, 0)

    def finish(carry: Array) -> Array:
        """Part i holds the entries i, i + parts, ... of the batch."""
        return jax.lax.collapse(jnp.swapaxes(carry, 0, 1), 0, 2) if carry.ndim > 1 else carry

    return Accumulator(
        init=lambda shapes: jax.tree.map(lambda x: jnp.broadcast_to(jnp.zeros_like(x), (parts, *x.shape)), shapes),
        update=lambda carry, new, i: jax.tree.map(partial(put, i=i), carry, new),
        finalize=lambda carry: jax.tree.map(finish, carry),
        aggregate=lambda results: results,
    )

"""Distances and inner products over all leaves together, and the point from which they are measured."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise, moments
from gradtx.placement import differing_like
from gradtx.reductions import crosses_devices, summed
from gradtx.value import known


def copied(params: Any) -> Any:
    """The parameters as they are now, in buffers of their own: both may be donated. Of shapes alone, zeros."""
    return jax.tree.map(
        lambda p: jnp.zeros_like(p) if isinstance(p, jax.ShapeDtypeStruct) else jnp.array(p, copy=True), params
    )


def scalar(params: Any, value: Any) -> Array:
    """A number to remember beside the parameters: as wide as the widest of them, float32 or wider."""
    with jax.numpy_dtype_promotion("standard"):
        wide = jnp.result_type(jnp.float32, *map(leafwise.wide_dtype, jax.tree.leaves(params)))
    value = jax.device_get(value) if known(value) else value  # so that it can be put where the parameters are
    return differing_like(jnp.asarray(value, jnp.finfo(wide).dtype), params)


def sums(fn: Callable, tree: Any, *rest: Any) -> list[Array]:
    """For each leaf of `tree`, the sum of all entries of what a real formula makes of it and its counterparts."""
    columns = [jax.tree.leaves(leafwise.choose(lambda _, x: x, tree, other)) for other in (tree, *rest)]

    def leaf(*xs):
        (entries,) = yield from summed((fn(*xs), None))
        return entries

    return leafwise.alike(leaf, list(zip(*columns, strict=True)))


def total(sums: list[Array]) -> Array:
    """The sum of leaves' sums, in the width of the widest. One that is NaN is left out: it spoils its leaf alone."""
    if not sums:
        return jnp.zeros(())
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        together = jnp.stack(sums)
    found = jnp.sum(jnp.where(jnp.isnan(together), 0, together))
    return jax.lax.optimization_barrier(found)  # or XLA adds them anew for every leaf that reads the sum


def totals(outputs: int, fn: Callable, tree: Any, *rest: Any) -> list[Array]:
    """The `total` of each of the `outputs` real arrays of one shape that a formula makes of each leaf of `tree` and its
    counterparts: of all in one pass over memory.
    """
    columns = [jax.tree.leaves(leafwise.choose(lambda _, x: x, tree, other)) for other in (tree, *rest)]

    def leaf(*xs):
        entries = fn(*xs)
        if any(map(crosses_devices, entries)):
            return (yield from summed(*((x, None) for x in entries)))
        return moments.sums(*entries)

    found = leafwise.alike(leaf, list(zip(*columns, strict=True)))
    return [total([sums[i] for sums in found]) for i in range(outputs)]


def distance_squared(tree: Any, a: Any, b: Any) -> Array:
    """The sum of |a - b|^2 over the leaves that `tree` has."""
    a, b = (jax.tree.leaves(leafwise.choose(lambda _, x: x, tree, other)) for other in (a, b))
    return total(leafwise.squares([x - y for x, y in zip(a, b, strict=True)]))


def product(a: Array, b: Array) -> Array:
    """The entries of an inner product: of a gradient, as JAX returns it, and a step or a difference of parameters."""
    return a.real * b.real - a.imag * b.imag if jnp.iscomplexobj(a) else a * b


def agreement(a: Array, b: Array) -> Array:
    """Real numbers with the signs of `product(a, b)`, also where that is too small for a number that is not 0."""
    return product(a, b) if jnp.iscomplexobj(a) else jnp.sign(a) * jnp.sign(b)


def ratio(part: Any, whole: Array) -> Array:
    """part / whole, and 0 where the whole is 0."""
    return jnp.where(whole == 0, 0, part / jnp.where(whole == 0, 1, whole))

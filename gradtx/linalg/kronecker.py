"""Kronecker products of matrices, one for each side of a tensor: second moments, their inverse roots, and their use."""

from collections.abc import Iterator, Sequence
from typing import TypeAlias

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradtx.linalg.axes import Axes, factor_axes
from gradtx.linalg.inverse_root import inverse_roots
from gradtx.linalg.matrices import map_stacks
from gradtx.placement import differing_like

SIDES = "abcdefghijklmnopqrstuvw"  # z is a stack's axis, y a new side

Factors: TypeAlias = tuple[Array | None, ...]  # of each side of the tensors in an array; None for one left alone


def add_second_moments(
    factors: Sequence[Factors],
    arrays: Sequence[Array],
    axes: Sequence[Axes],
    decay: ArrayLike,
    share: ArrayLike,
    *,
    dtype: DTypeLike | None = None,
) -> list[Factors]:
    """decay F + share X X^H for each side of the tensors in arrays, X being a tensor with that side as its rows.

    A tensor with large entries counts scaled down, so that 1e8 such products can be added in its dtype; one that is not
    finite does not count.

    Args:
      dtype: what real tensors are rounded to before they are multiplied.
    """
    found: dict[int, Factors] = {}
    for has, places in _by_sides(factors):

        def measured(stacks: Sequence[Array], decay: ArrayLike, share: ArrayLike, has: Sequence[int] = has) -> list:
            *old, x = stacks
            size = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), initial=0)
            most = (jnp.finfo(size.dtype).max / max(x[0].size, 1)) ** 0.5 * 1e-4
            scale = jnp.where(size > most, most / jnp.where(size > most, size, 1), 1)
            shaped = lambda y, like: y.reshape(-1, *[1] * (like.ndim - 1))
            finite, x = jnp.isfinite(size), x * shaped(scale, x)
            new = [decay * f + share * second_moments(x, k, dtype=dtype) for f, k in zip(old, has, strict=True)]
            return [jnp.where(shaped(finite, f), y, f) for f, y in zip(old, new, strict=True)]

        rows = [(*_present(factors[i]), arrays[i]) for i in places]
        laid = [(*_laid(axes[i], has), axes[i]) for i in places]
        for i, new in zip(places, map_stacks(measured, rows, laid, (decay, share)), strict=True):
            found[i] = _like(factors[i], new)
    return [found[i] for i in range(len(factors))]


def roots_when(
    due: Array,
    roots: Sequence[Factors],
    factors: Sequence[Factors],
    axes: Sequence[Axes],
    exponents: Sequence[Sequence[float]],
    scale: ArrayLike,
    numbers: dict[str, ArrayLike],
    *,
    method: str,
) -> list[Factors]:
    """`inverse_roots` of scale F for every factor, in a branch that is taken where `due`; else the roots as they are.

    Matrices of one size and exponent are computed together, of whatever sides.

    Args:
      exponents: of each side of each array.
      numbers: `eps`, `relative_eps` and `threshold` of `inverse_roots`.
    """
    every = [(i, k) for i, some in enumerate(factors) for k, x in enumerate(some) if x is not None]
    if not every:
        return list(roots)
    old, second = ([x for some in tree for x in _present(some)] for tree in (roots, factors))

    def made() -> list[Array]:
        found: dict[int, Array] = {}
        for exponent in dict.fromkeys(exponents[i][k] for i, k in every):

            def fn(stacks: Sequence[Array], scale: ArrayLike, numbers: dict, exponent: float = exponent) -> list[Array]:
                previous, factor = stacks
                return [inverse_roots(factor * scale, previous, exponent, method=method, **numbers)]

            places = [n for n, (i, k) in enumerate(every) if exponents[i][k] == exponent]
            rows = [(old[n], second[n]) for n in places]
            laid = [(factor_axes(axes[every[n][0]]),) * 2 for n in places]
            found |= zip(places, [x for (x,) in map_stacks(fn, rows, laid, (scale, numbers))], strict=True)
        return [found[n] for n in range(len(every))]

    if isinstance(due, jax.core.Tracer) or not due.is_fully_addressable:
        new = iter(jax.lax.cond(due, made, lambda: differing_like(old, due)))
    else:  # eager code would compile both branches at each call
        new = iter(made() if due else old)
    return [_like(some, new) for some in roots]


def multiplied(
    arrays: Sequence[Array], roots: Sequence[Factors], axes: Sequence[Axes], *, dtype: DTypeLike | None = None
) -> list[Array]:
    """The tensors in arrays, each side multiplied by its matrix.

    Args:
      dtype: in what real products are computed.
    """
    found: dict[int, Array] = {}
    for has, places in _by_sides(roots):
        if not has:
            found |= {i: arrays[i] for i in places}
            continue

        def fn(stacks: Sequence[Array], has: Sequence[int] = has) -> list[Array]:
            x, *matrices = stacks
            for k, matrix in zip(has, matrices, strict=True):
                x = on_side(x, k, matrix, dtype=dtype)
            return [x]

        rows = [(arrays[i], *_present(roots[i])) for i in places]
        laid = [(axes[i], *_laid(axes[i], has)) for i in places]
        found |= zip(places, [x for (x,) in map_stacks(fn, rows, laid)], strict=True)
    return [found[i] for i in range(len(arrays))]


def second_moments(x: Array, side: int, *, dtype: DTypeLike | None = None) -> Array:
    """X X^H of each tensor in a stack, [n, d, d]; sums have the dtype of x."""
    here = SIDES[: x.ndim - 1]
    there = here.replace(here[side], "y")
    return _product(f"z{here},z{there}->z{here[side]}y", x, jnp.conj(x), dtype)


def on_side(x: Array, side: int, matrix: Array, *, dtype: DTypeLike | None = None) -> Array:
    """Each tensor in a stack with a side multiplied by its matrix, [n, d, d]; sums have the dtype of x."""
    here = SIDES[: x.ndim - 1]
    return _product(f"zy{here[side]},z{here}->z{here.replace(here[side], 'y')}", matrix, x, dtype)


def _product(formula: str, a: Array, b: Array, dtype: DTypeLike | None) -> Array:
    if dtype is None or jnp.iscomplexobj(a):
        return jnp.einsum(formula, a, b, precision="highest")
    return jnp.einsum(formula, a.astype(dtype), b.astype(dtype), preferred_element_type=a.dtype)


def _by_sides(factors: Sequence[Factors]) -> list[tuple[tuple[int, ...], list[int]]]:
    """The sides that have a matrix, and the places of the arrays of which these have."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, some in enumerate(factors):
        groups.setdefault(tuple(k for k, x in enumerate(some) if x is not None), []).append(i)
    return list(groups.items())


def _present(some: Factors) -> list[Array]:
    return [x for x in some if x is not None]


def _like(some: Factors, new: Sequence[Array] | Iterator[Array]) -> Factors:
    """New matrices in the places of those that are there."""
    remaining = iter(new)
    return tuple(None if x is None else next(remaining) for x in some)


def _laid(axes: Axes, has: Sequence[int]) -> tuple[Axes, ...]:
    return (factor_axes(axes),) * len(has)

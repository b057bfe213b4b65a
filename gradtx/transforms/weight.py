"""Links that decide the new weight as a whole: they stand after the learning rate and return the step to it.

Such a link is a formula of one weight and its step, which makes the weight that is wanted:

    @transformation
    class halve_growth(GradientTransformation):
        def update(self, updates, state, params=None, **extra):
            def formula(w, step):
                return w + jnp.where(w * step > 0, step / 2, step)

            return steps_to(formula, updates, require_params(params, self)), ClockState(tick(state.count))

`steps_to` calls it with arrays that are float32 or wider, the weight as it is stored, and takes the weight away from
what comes out. `apply_updates` adds it again and rounds once: so what is stored is what the formula made, to a rounding
of the parameter's dtype, and the next step starts from what is stored. A formula may ask for sums over the axes of a
matrix (`unit_axes`, `sums`). Several such links may follow each other: each sees the step as the one before it left it.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.combine.dimensions import matrix_axes
from gradtx.core import Params, Updates
from gradtx.moments import abs_sq
from gradtx.paths import plain
from gradtx.reductions import Asking, summed


def steps_to(formula: Callable, updates: Updates, params: Params, *rest: Any) -> Updates:
    """The steps to the weights that a formula makes: `formula(w, step, *rest) - w` for each leaf.

    Args:
      formula: for one array, as of `leafwise.map`; it may be a generator that asks for sums.
      updates: steps, which `apply_updates` would add.
      params: the weights now.
      rest: what else it takes, trees like the updates.
    """

    def leaf(step, w, *others):
        new = formula(w, step, *others)
        if not isinstance(new, Array):
            new = yield from new
        return new - w

    return leafwise.map(leaf, updates, params, *rest)


def unit_axes(numbers: Any, params: Params, owner: str, unit: str = "matrix") -> Any:
    """For each leaf the axes over which its norms are taken, a frozenset.

    Args:
      numbers: from `as_dimension_numbers`. None: the last two axes of a leaf are its matrix, and those before hold
        several; what has fewer than two axes is one whole. So is a leaf that has no dimension numbers.
      unit: "matrix", or "output": what feeds one output of it, a column where rows are inputs.
    """
    leaves = jax.tree.leaves(params)
    found = matrix_axes(numbers, params, owner) if numbers is not None else [None] * len(leaves)
    axes = []
    for p, named in zip(leaves, found, strict=True):
        if named is not None:
            over = named.rows if unit == "output" else named.rows + named.columns
        elif numbers is None and p.ndim > 1:
            over = (p.ndim - 2,) if unit == "output" else (p.ndim - 2, p.ndim - 1)
        else:
            over = range(p.ndim)
        axes.append(frozenset(over))
    return jax.tree.unflatten(jax.tree.structure(plain(params)), axes)


def squares(axes: frozenset, *xs: Array) -> Asking[tuple[Array, ...]]:
    """Within a formula, `yield from`: the sums of |x|^2 of each array over these axes, which stay, of size 1."""
    return (yield from sums(axes, *map(abs_sq, xs)))


def sums(axes: frozenset, *xs: Array) -> Asking[tuple[Array, ...]]:
    """Within a formula, `yield from`: the sum of each array over these axes, which stay, of size 1."""
    over = tuple(sorted(axes))
    found = yield from summed(*((x, over) for x in xs))
    return tuple(jnp.expand_dims(x, over) for x in found)


def inner(a: Array, b: Array) -> Array:
    """The products of entries whose sum is the scalar product, real."""
    return (jnp.conj(a) * b).real if jnp.iscomplexobj(a) else a * b


def is_length(square: Array) -> Array:
    """Whether a sum of squares is that of something that has a length: neither 0, nor NaN, nor too large for it."""
    return (square > 0) & (square < jnp.inf)

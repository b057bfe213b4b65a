"""Which sides of each parameter have statistics of their own, d x d for a side of length d."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from gradtx.combine.dimensions import matrix_axes
from gradtx.core import Params
from gradtx.linalg.axes import Axes, every_axis
from gradtx.linalg.blocking import merged


class Sides(NamedTuple):
    """The sides of the tensors in a parameter, and those of them that have statistics."""

    axes: Axes
    has: tuple[bool, ...]  # of each side

    @property
    def some(self) -> Axes:
        """The axes with the sides that have statistics alone."""
        return Axes(self.axes.batch, tuple(side for side, mine in zip(self.axes.sides, self.has, strict=True) if mine))

    def of_each(self, found: Sequence[Any]) -> tuple:
        """What is given of the sides that have statistics, with None in the places of the others."""
        remaining = iter(found)
        return tuple(next(remaining) if mine else None for mine in self.has)


def sides_of(
    numbers: Any,
    params: Params,
    owner: str,
    *,
    max_dim: int,
    merge: bool = False,
    least: int = 1,
    vectors: bool = False,
) -> list[Sides | None]:
    """Of each leaf its sides; None where none has statistics.

    A side has some if it is longer than 1 and at most `max_dim` long.

    Args:
      numbers: dimension numbers, from `as_dimension_numbers`, of all leaves; None, each axis is a side.
      merge: without numbers, take consecutive axes as one side as long as their product is at most `max_dim`.
      least: no more are joined where so many sides are left.
      vectors: without numbers, whether leaves of one dimension have a side.

    Raises:
      ValueError: a leaf has not the axes that its numbers name; it is named.
    """
    leaves = jax.tree.leaves(params)
    if numbers is None:

        def axes(p):
            if p.ndim < (1 if vectors else 2):
                return None
            return merged(p.shape, max_dim, least=least) if merge else every_axis(p.ndim)

        found = [axes(p) for p in leaves]
    else:
        found = matrix_axes(numbers, params, owner)
    sides = [
        None if a is None or not p.size else _sides(a, p.shape, max_dim) for a, p in zip(found, leaves, strict=True)
    ]
    return [None if s is None or not any(s.has) else s for s in sides]


def has_statistics(size: int, max_dim: int) -> bool:
    """Whether a side of this length has statistics."""
    return 1 < size <= max_dim


def _sides(axes: Axes, shape: Sequence[int], max_dim: int) -> Sides:
    return Sides(axes, tuple(has_statistics(size, max_dim) for size in axes.sizes(shape)[1:]))

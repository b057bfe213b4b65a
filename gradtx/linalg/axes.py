"""Which axes of an array are the sides of its tensors, of a matrix rows and columns, and which hold several of them."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx.placement import zeros_of_axes


class Axes(NamedTuple):
    """The axes of an array that holds matrices, or tensors of any other rank: each axis in one group."""

    batch: tuple[int, ...]
    sides: tuple[tuple[int, ...], ...]  # of a matrix two, its rows and its columns; each the product of its axes

    @property
    def rows(self) -> tuple[int, ...]:
        return self.sides[0]

    @property
    def columns(self) -> tuple[int, ...]:
        return self.sides[1]

    @property
    def order(self) -> tuple[int, ...]:
        """All axes, the batch first."""
        return self.batch + sum(self.sides, ())

    @property
    def transposed(self) -> "Axes":
        """The same matrices with rows for columns."""
        return Axes(self.batch, self.sides[::-1])

    def sizes(self, shape: Sequence[int]) -> tuple[int, ...]:
        """How many tensors an array of this shape holds, and the size of each side: of matrices rows and columns."""
        return tuple(math.prod(shape[i] for i in group) for group in (self.batch, *self.sides))


def axes(ndim: int, rows: int | Sequence[int], columns: int | Sequence[int]) -> Axes:
    """The axes of an array of `ndim` dimensions: the rows and columns that are named, the others its batch.

    Args:
      rows, columns: one axis or several, whose product it is, in that order; negative ones count from the end.

    Raises:
      ValueError: there are fewer than two dimensions, an axis is not there, or it is named twice.
    """
    named = [(group,) if isinstance(group, int) else tuple(group) for group in (rows, columns)]
    every = [i for group in named for i in group]
    if ndim < 2 or not all(-ndim <= i < ndim for i in every):
        raise ValueError(f"it has {ndim} dimensions, which do not hold the axes {named[0]} and {named[1]}")
    row_axes, column_axes = (tuple(i % ndim for i in group) for group in named)
    together = row_axes + column_axes
    if len(set(together)) < len(together):
        raise ValueError(f"of its {ndim} dimensions one is named twice in the axes {named[0]} and {named[1]}")
    return Axes(tuple(i for i in range(ndim) if i not in together), (row_axes, column_axes))


def every_axis(ndim: int) -> Axes:
    """The axes of one tensor, of which each is a side."""
    return Axes((), tuple((i,) for i in range(ndim)))


def as_matrices(x: Array, axes: Axes) -> Array:
    """The matrices in an array, or its tensors, stacked along a first axis."""
    return x.transpose(axes.order).reshape(axes.sizes(x.shape))


def from_matrices(matrices: Array, axes: Axes, shape: Sequence[int]) -> Array:
    """The array of this shape that holds the matrices: the inverse of `as_matrices`."""
    order = axes.order
    return matrices.reshape([shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])


def factors(x: Array, axes: Axes, *, dtype: DTypeLike | None = None) -> list[Array]:
    """Zeros, d x d for each side of size d of the tensors in an array, with its batch axes before: where statistics of
    the sides are kept. Their rows are sharded along all mesh axes that the tensors are sharded along, whichever side
    of theirs lies there, if that divides d; else as their own side is.
    """
    made_of = [(i,) for i in axes.batch]
    along = {len(made_of): [i for i in range(x.ndim) if i not in axes.batch]}
    size = lambda side: math.prod(x.shape[i] for i in side)
    shape = lambda side: (*[x.shape[i] for i in axes.batch], size(side), size(side))
    zeros = lambda side: zeros_of_axes(x, [*made_of, side, ()], shape=shape(side), dtype=dtype, along=along)
    return [zeros(side) for side in axes.sides]


def factor_axes(axes: Axes) -> Axes:
    """The axes of each of the `factors`."""
    n = len(axes.batch)
    return Axes(tuple(range(n)), ((n,), (n + 1,)))

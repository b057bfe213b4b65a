"""Dimension numbers: which axes of each parameter are the rows and the columns of its matrix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax

from gradtx import leafwise, paths
from gradtx.combine.masking import _Paths, as_labels, labelled
from gradtx.core import Params
from gradtx.linalg.matrices import Axes, axes


def as_dimension_numbers(owner: str, name: str, numbers: Any) -> Any:
    """Dimension numbers in their stored, hashable form. The forms that users give:

    - None: the first axis of a matrix is its rows, the second its columns;
    - a named tuple of `reduction_axis`, the rows, and `output_axis`, the columns, each an axis or several: for every
      parameter;
    - a pytree of such, and of None, with the parameters' structure or a prefix of it; compared by path;
    - a function from the parameters' shapes (`jax.ShapeDtypeStruct`s) to such a tree.
    """
    if numbers is None or isinstance(numbers, _Paths) or (callable(numbers) and jax.tree_util.all_leaves([numbers])):
        return numbers
    return _stored(owner, name, numbers)


def dimension_numbers(numbers: Any, params: Params, owner: str) -> list[Any]:
    """The dimension numbers of each leaf, from `as_dimension_numbers`; None for what has none.

    Without any given, a matrix has those of a matrix, (0, 1), and nothing else has.

    Raises:
      ValueError: a leaf has no entry; it is named.
    """
    if numbers is None:
        return [_MATRIX if p.ndim == 2 else None for p in jax.tree.leaves(params)]
    if callable(numbers):
        numbers = _stored(owner, "weight_dimension_numbers", numbers(jax.eval_shape(leafwise.widen, params)))
    return [entry.numbers for _, entry in labelled(numbers, params, owner)]


def matrix_axes(numbers: Any, params: Params, owner: str, *, batch: bool = True) -> list[Axes | None]:
    """As `dimension_numbers`, for each leaf the axes of its matrices.

    Args:
      batch: whether a leaf may have axes that are neither rows nor columns.

    Raises:
      ValueError: a leaf has no such axes, or has others where there must be none; it is named.
    """
    found = []
    named = zip(paths.names(params), jax.tree.leaves(params), dimension_numbers(numbers, params, owner), strict=True)
    for name, p, entry in named:
        try:
            found.append(None if entry is None else axes(p.ndim, entry[0], entry[1]))
        except ValueError as error:
            raise ValueError(f"`{owner}`: the parameter {name!r} is no matrix: {error}.") from None
        if not batch and entry is not None and found[-1].batch:
            raise ValueError(
                f"`{owner}`: the dimension numbers of {name!r}, {entry!r}, must name each of its {p.ndim} dimensions."
            )
    return found


def all_matrices(numbers: Any, params: Params, owner: str) -> list[Axes]:
    """As `matrix_axes`, where every leaf must be a matrix, or hold some.

    Raises:
      ValueError: a leaf is no matrix; it is named.
    """
    found = matrix_axes(numbers, params, owner)
    for name, p, entry in zip(paths.names(params), jax.tree.leaves(params), found, strict=True):
        if entry is None:
            raise ValueError(
                f"`{owner}`: the parameter {name!r} of shape {p.shape} is no matrix: give its axes in "
                "weight_dimension_numbers, or leave it to another transformation, as `muon` does."
            )
    return [entry for entry in found if entry is not None]


@dataclass(frozen=True, repr=False)
class _Entry:
    """A leaf's dimension numbers, or None, as one leaf: neither may be a pytree here."""

    numbers: tuple | None

    def __repr__(self) -> str:
        return repr(self.numbers)


_MATRIX = (0, 1)


def _stored(owner: str, name: str, numbers: Any) -> Any:
    return as_labels(owner, name, jax.tree.map(lambda x: _leaf(owner, name, x), numbers, is_leaf=_is_leaf))


def _leaf(owner: str, name: str, x: Any) -> _Entry:
    if x is None:
        return _Entry(None)
    if not _is_numbers(x):
        raise TypeError(
            f"`{owner}`: {name} must hold dimension numbers, such as MuonDimensionNumbers(0, 1), or None for a "
            f"parameter that is not to be taken as a matrix; got {x!r}."
        )
    hashable = lambda group: tuple(group) if isinstance(group, Sequence) else group
    return _Entry(x._replace(reduction_axis=hashable(x.reduction_axis), output_axis=hashable(x.output_axis)))


def _is_numbers(x: Any) -> bool:
    return isinstance(x, tuple) and {"reduction_axis", "output_axis"} <= set(getattr(x, "_fields", ()))


def _is_leaf(x: Any) -> bool:
    return x is None or _is_numbers(x)

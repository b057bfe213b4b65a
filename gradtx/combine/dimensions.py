"""Dimension numbers: which axes of each parameter are the rows and the columns of its matrix."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from gradtx import leafwise, paths
from gradtx.combine.masking import _Paths, as_labels, labelled
from gradtx.core import Params
from gradtx.linalg.axes import Axes, axes
from gradtx.placement import axes_of, laid_like
from gradtx.recipe import PrintsAsCode
from gradtx.value import state


@state
class MuonDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the rows and the columns of its matrix; those not named hold several matrices.

    `MuonDimensionNumbers(0, 1, parts={1: 36})`: along axis 1 lie 36 matrices side by side, such as the 12 heads of each
    of queries, keys and values. Each of them is then a matrix of its own.
    """

    reduction_axis: int | Sequence[int] = 0  # the rows: the input of x W
    output_axis: int | Sequence[int] = 1  # the columns: its output
    parts: Mapping[int, int] | None = None  # how many matrices lie side by side along an axis


def as_dimension_numbers(owner: str, name: str, numbers: Any) -> Any:
    """Dimension numbers in their stored, hashable form. The forms that users give:

    - None: the first axis of a matrix is its rows, the second its columns;
    - `MuonDimensionNumbers`, or another named tuple of `reduction_axis` and `output_axis`, each an axis or several: for
      every parameter;
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
        if _parts(entry):
            raise ValueError(f"`{owner}`: {name!r} has parts, which it does not know: {entry!r}.")
        found.append(None if entry is None else _axes(entry, p.ndim, name, owner))
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
            raise _no_matrix(owner, name, p)
    return [entry for entry in found if entry is not None]


def divided(numbers: Any, params: Params, owner: str) -> list[tuple[Array, Axes]]:
    """Each leaf and the axes of its matrices, where every leaf must be a matrix, or hold some.

    An axis with several parts is two in what is returned, the first of them a batch. `undivided` is the way back.

    Raises:
      ValueError: a leaf is no matrix, or its axis has not that many equal parts; it is named.
    """
    found = []
    named = zip(paths.names(params), jax.tree.leaves(params), dimension_numbers(numbers, params, owner), strict=True)
    for name, p, entry in named:
        if entry is None:
            raise _no_matrix(owner, name, p)
        whole = _axes(entry, p.ndim, name, owner)
        parts = {axis % p.ndim: number for axis, number in _parts(entry)}
        for axis, number in parts.items():
            if number < 1 or p.shape[axis] % number:
                raise ValueError(f"`{owner}`: axis {axis} of {name!r}, shape {p.shape}, has not {number} equal parts.")
        moved = [[i + sum(axis <= i for axis in parts) for i in side] for side in whole.sides]
        found.append((_in_parts(p, parts), axes(p.ndim + len(parts), *moved)) if parts else (p, whole))
    return found


def undivided(x: Array, like: Array) -> Array:
    """What was made of an array from `divided`, in the shape that its leaf had."""
    return x if x.shape == like.shape else laid_like(x.reshape(like.shape), like)


def _in_parts(x: Any, parts: dict[int, int]) -> Any:
    shape = [m for i, n in enumerate(x.shape) for m in ((parts[i], n // parts[i]) if i in parts else (n,))]
    if not isinstance(x, jax.Array):
        return jax.ShapeDtypeStruct(shape, x.dtype)
    kind = jax.typeof(x).sharding
    if any(kind.spec):  # parts must lie on one device each; gathered along the axis where devices do not divide them
        spec = [*kind.spec, *[None] * (x.ndim - len(kind.spec))]
        for axis, number in parts.items():
            devices = math.prod(kind.mesh.shape[name] for name in axes_of(spec[axis]))
            spec[axis] = None if number % devices else spec[axis]
        x = jax.sharding.reshard(x, NamedSharding(kind.mesh, PartitionSpec(*spec)))
    return x.reshape(shape)


def _axes(entry: Any, ndim: int, name: str, owner: str) -> Axes:
    try:
        if any(not -ndim <= axis < ndim for axis, _ in _parts(entry)):
            raise ValueError(f"it has {ndim} dimensions, which do not hold the axes of {entry.parts}")
        return axes(ndim, entry[0], entry[1])
    except ValueError as error:
        raise ValueError(f"`{owner}`: the parameter {name!r} is no matrix: {error}.") from None


def _parts(entry: Any) -> tuple[tuple[int, int], ...]:
    return getattr(entry, "parts", None) or ()


def _no_matrix(owner: str, name: str, p: Any) -> ValueError:
    return ValueError(
        f"`{owner}`: the parameter {name!r} of shape {p.shape} is no matrix: give its axes in "
        "weight_dimension_numbers, or leave it to another transformation, as `muon` does."
    )


@dataclass(frozen=True, repr=False)
class _Entry(PrintsAsCode):
    """A leaf's dimension numbers, or None, as one leaf: neither may be a pytree here."""

    numbers: tuple | None

    def recipe(self) -> Any:
        return self.numbers


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
    x = x._replace(reduction_axis=hashable(x.reduction_axis), output_axis=hashable(x.output_axis))
    return _Entry(x._replace(parts=tuple(sorted(dict(x.parts).items()))) if _parts(x) else x)


def _is_numbers(x: Any) -> bool:
    return isinstance(x, tuple) and {"reduction_axis", "output_axis"} <= set(getattr(x, "_fields", ()))


def _is_leaf(x: Any) -> bool:
    return x is None or _is_numbers(x)

"""Trees of arrays: mapping formulas, dtypes, norms.

`None` is an empty subtree, never a leaf. Where the updates hold None, a parameter has no gradient: it and its state
stay as they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import collectives
from gradtx.collectives import Axis
from gradtx.formulas import alike, in_tuple
from gradtx.moments import length, squares_summed
from gradtx.paths import MismatchError, aligned, is_none, plain, shown, unflatten
from gradtx.placement import differing_like, on_one_device
from gradtx.reductions import Asking, occurs

SMALL = 2**14  # entries up to which leaves of one shape are reduced together, ...
BUNDLE = 16  # ... this many at a time


# Mapping


def map(fn: Callable, tree: Any, *rest: Any) -> Any:
    """Maps a formula that makes one array per leaf of `tree`. As `unzip_map`."""
    return unzip_map(in_tuple(fn), tree, *rest, outputs=1)[0]


def unzip_map(fn: Callable, tree: Any, *rest: Any, outputs: int) -> tuple:
    """Maps a formula that makes `outputs` arrays per leaf of `tree`, and returns that many trees.

    Each of `rest` may hold a whole subtree, or None, where `tree` has a leaf. Where `tree` holds None, `fn` is not
    called: the first output is None, the next ones are the leaves of `rest` as they are, or None. `fn` must depend on
    its arguments alone, not on the leaf's place: leaves that look alike are computed by one trace (`alike`). Each
    output is in the containers of the argument in its place: of `tree`, of the first of `rest`, ...
    """
    structures, rows = _rows(tree, rest)
    results = iter(alike(fn, [row for row in rows if row[0] is not None]))
    rows = [(*row, *[None] * outputs)[:outputs] if row[0] is None else next(results) for row in rows]
    structures += structures[:1] * (outputs - len(structures))
    return tuple(unflatten(structures[i], [row[i] for row in rows], tree) for i in range(outputs))


def choose(fn: Callable, tree: Any, *rest: Any) -> Any:
    """Maps a function that picks one of its arguments and computes nothing. None in `tree` gives None."""
    (structure, *_), rows = _rows(tree, rest)
    return unflatten(structure, [None if row[0] is None else fn(*row) for row in rows], tree)


def anywhere(predicate: Callable, *trees: Any, axis: Axis = None) -> Array:
    """Whether a predicate of entries, of which each tree gives one, holds for any entry of any leaf.

    Args:
      axis: the manual axis along which it may be on any device.
    """

    def leaf(*xs):
        return (yield from occurs(predicate(*xs)))

    found = alike(leaf, list(zip(*[jax.tree.leaves(tree) for tree in trees], strict=True)))
    return collectives.anywhere(jnp.any(jnp.stack(found)), axis) if found else jnp.array(False)


def _rows(tree: Any, rest: tuple) -> tuple[list, list[tuple]]:
    leaves, structure = jax.tree.flatten(tree, is_leaf=is_none)
    parts = [(structure, leaves), *(aligned(structure, other, tree) for other in rest)]
    return [structure for structure, _ in parts], list(zip(*(leaves for _, leaves in parts), strict=True))


# Dtypes


def is_float(x: Any) -> bool:
    """Whether a leaf is floating or complex, hence something to optimize."""
    return jnp.issubdtype(x.dtype, jnp.inexact) if hasattr(x, "dtype") else isinstance(x, (float, complex))


def is_number(x: Any) -> bool:
    """Whether a leaf is an array of numbers or bools, or one of them."""
    if not hasattr(x, "dtype"):
        return isinstance(x, (bool, int, float, complex))
    return jnp.issubdtype(x.dtype, jnp.number) or jnp.issubdtype(x.dtype, jnp.bool_)


def floats(tree: Any) -> Any:
    """The tree with None in place of every leaf that is not floating or complex."""
    return choose(lambda x: x if is_float(x) else None, tree)


def gradients(updates: Any, params: Any) -> Any:
    """The updates as they are computed with: in float32 or wider, None where the parameter is not floating.

    Raises:
      MismatchError: a complex gradient of a real parameter; an integer, without params, which would tell what it is of.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_none)
    _, beside = aligned(structure, updates if params is None else params, updates)

    def leaf(path, u, p):
        if u is None or (params is not None and not is_float(p)):
            return None
        if is_float(u):
            if params is not None and jnp.iscomplexobj(u) and not jnp.iscomplexobj(p):
                raise MismatchError(f"updates{shown(path)} is complex, and its parameter is real")
            return widen(u)
        if not is_number(u):  # what JAX and Equinox give for the gradient of what is not floating
            return None
        if params is None:
            raise MismatchError(
                f"updates{shown(path)} holds integers: give `params` too, which tell whether they are the gradient of "
                "a floating parameter, or None in its place"
            )
        return _cast(u, wide_dtype(p))

    row = [leaf(path, u, p) for (path, u), p in zip(leaves, beside, strict=True)]
    return unflatten(structure, row, updates)


def wide_dtype(x: Any) -> Any:
    """The dtype to compute with: float32 where the leaf's is narrower, else its own."""
    dtype = jnp.result_type(x)
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def widen(tree: Any) -> Any:
    """Casts floating leaves narrower than float32 to float32."""
    return jax.tree.map(lambda x: _cast(x, wide_dtype(x)) if is_float(x) else x, tree)


def evaluated(fn: Callable, params: Any, slot: Any) -> Any:
    """`fn` of each floating parameter and its slot, both in float32 or wider, rounded to the parameter's dtype.

    What has no slot stays.
    """

    def leaf(p: Any, x: Any) -> Any:
        return p if x is None or not is_float(p) else fn(widen(p), widen(x)).astype(jnp.result_type(p))

    with jax.numpy_dtype_promotion("standard"):  # a slot may be wider than its parameter
        return map(leaf, params, slot)


def cast_like(tree: Any, like: Any) -> Any:
    """Casts each leaf to the dtype of its counterpart in `like`, never weakly typed; the shapes must agree."""

    def leaf(path, y, x):
        if jnp.shape(x) != jnp.shape(y):
            raise MismatchError(f"state{shown(path)} has shape {jnp.shape(y)} and would become {jnp.shape(x)}")
        return _cast(x, jnp.result_type(y)) if is_number(y) else x

    return jax.tree_util.tree_map_with_path(leaf, like, tree)


def strong(tree: Any) -> Any:
    """The tree as arrays without weak types."""
    return jax.tree.map(lambda x: _cast(x, jnp.result_type(x)) if is_number(x) else x, tree)


def zeros(tree: Any, dtype: Any = None, *, real: bool = False) -> Any:
    """Zeros with the shapes and shardings of `tree`, in `dtype` or else in float32 or wider.

    Args:
      real: a complex leaf gets real zeros, as for the mean of |g|^2.
    """
    return full(tree, 0, dtype, real=real)


def zero_of_each(tree: Any, *, axis: Axis = None) -> Any:
    """A real zero for each leaf, float32 or wider, beside it; with `axis`, the same on all devices along it."""

    def zero(p: Any) -> Array:
        dtype = jnp.finfo(wide_dtype(p)).dtype
        if axis is None:
            return jnp.zeros_like(p, dtype, shape=())
        return differing_like(jnp.zeros((), dtype), p, but=collectives.names(axis))

    return map(zero, plain(tree))


def full(tree: Any, fill: Any, dtype: Any = None, *, real: bool = False) -> Any:
    """As `zeros`, with every entry `fill`."""

    def leaf(x):
        chosen = jnp.dtype(dtype or wide_dtype(x))
        if jnp.iscomplexobj(x) and not jnp.issubdtype(chosen, jnp.complexfloating) and not real:
            chosen = jnp.result_type(chosen, jnp.complex64)
        return jnp.full_like(x, fill, dtype=jnp.finfo(chosen).dtype if real else chosen)

    return jax.tree.map(leaf, tree)


# Norms


def norm(tree: Any, *, axis: Axis = None) -> Array:
    """The L2 norm of all leaves together, in float32 or wider: one reduction per leaf, and one of all their sums."""
    return joint_norm(squares(tree, axis=axis))


def squares(tree: Any, *, axis: Axis = None) -> list[Array]:
    """The sum of |x|^2 over each leaf, in float32 or wider, in the order of the leaves.

    Args:
      axis: the manual axis along which devices hold parts of the leaves.

    On one device small leaves of one shape are reduced by the dozen. On several they may be sharded in different ways.
    """
    leaves = jax.tree.leaves(widen(tree))
    largest = SMALL if on_one_device() else -1
    groups = {}
    for i, x in enumerate(leaves):
        groups.setdefault(jax.typeof(x) if x.size <= largest else i, []).append(i)
    bundles = [group[i : i + BUNDLE] for group in groups.values() for i in range(0, len(group), BUNDLE)]
    found = alike(_squares, [tuple(leaves[i] for i in bundle) for bundle in bundles])
    by_place = {i: x for bundle, xs in zip(bundles, found, strict=True) for i, x in zip(bundle, xs, strict=True)}
    return collectives.totals([by_place[i] for i in range(len(leaves))], axis)


def joint_norm(squares: list[Array], *, skip_nan: bool = False) -> Array:
    """The norm of leaves of which the sums of squares are given; without those that hold NaN, if `skip_nan`."""
    if not squares:
        return jnp.zeros(())
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        together = jnp.stack(squares)
    return length(jnp.sum(jnp.where(jnp.isnan(together), 0, together) if skip_nan else together))


def _squares(*xs: Array) -> Asking[tuple[Array, ...]]:
    return (yield from squares_summed(xs))


def _cast(x: Any, dtype: Any) -> Array:
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jax.lax.convert_element_type(x, dtype)

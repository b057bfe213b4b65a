"""Trees of arrays: mapping, dtypes, norms, paths, and the errors that name a leaf.

`None` is an empty subtree, never a leaf. Where the updates hold None, a parameter has no gradient: it and its state
stay as they are.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.moments import abs_sq, root

map = jax.tree.map


class MismatchError(ValueError):
    """Two trees that should have the same leaves do not."""


# Mapping


def unzip_map(fn: Callable, tree: Any, *rest: Any, outputs: int) -> tuple:
    """Maps `fn`, which returns `outputs` arrays per leaf of `tree`, and returns that many trees.

    Each of `rest` may hold a whole subtree, or None, where `tree` has a leaf. Where `tree` holds None, `fn` is not
    called: the first output is None, the next ones are the leaves of `rest` as they are, or None.
    """
    leaves, structure = jax.tree.flatten(tree, is_leaf=_is_none)
    columns = [_flatten_up_to(structure, other, tree) for other in rest]
    untouched = lambda row: (*row, *[None] * outputs)[:outputs]
    rows = [untouched(row) if row[0] is None else fn(*row) for row in zip(leaves, *columns, strict=True)]
    return tuple(structure.unflatten([row[i] for row in rows]) for i in range(outputs))


def zip_map(fn: Callable, tree: Any, *rest: Any) -> Any:
    """Maps `fn`, which returns one array per leaf of `tree`. As `unzip_map`."""
    return unzip_map(lambda *row: (fn(*row),), tree, *rest, outputs=1)[0]


# Dtypes


def is_float(x: Any) -> bool:
    """Whether a leaf is floating or complex, hence something to optimize."""
    return jnp.issubdtype(x.dtype, jnp.inexact) if hasattr(x, "dtype") else isinstance(x, (float, complex))


def floats(tree: Any) -> Any:
    """The tree with None in place of every leaf that is not floating or complex."""
    return map(lambda x: x if is_float(x) else None, tree)


def wide_dtype(x: Any) -> Any:
    """The dtype to compute with: float32 where the leaf's is narrower, else its own."""
    dtype = jnp.result_type(x)
    return jnp.float32 if jnp.issubdtype(dtype, jnp.floating) and jnp.finfo(dtype).bits < 32 else dtype


def widen(tree: Any) -> Any:
    """Casts floating leaves narrower than float32 to float32."""
    return map(lambda x: _cast(x, wide_dtype(x)) if is_float(x) else x, tree)


def cast_like(tree: Any, like: Any) -> Any:
    """Casts each leaf to the dtype of its counterpart in `like`, never weakly typed; the shapes must agree."""

    def leaf(path, y, x):
        if jnp.shape(x) != jnp.shape(y):
            raise MismatchError(f"state{_show(path)} has shape {jnp.shape(y)} and would become {jnp.shape(x)}")
        return _cast(x, jnp.result_type(y)) if _is_number(y) else x

    return jax.tree_util.tree_map_with_path(leaf, like, tree)


def strong(tree: Any) -> Any:
    """The tree as arrays without weak types."""
    return map(lambda x: _cast(x, jnp.result_type(x)) if _is_number(x) else x, tree)


def zeros(tree: Any, dtype: Any = None, *, real: bool = False) -> Any:
    """Zeros with the shapes and shardings of `tree`, in `dtype` or else in float32 or wider.

    Args:
      real: a complex leaf gets real zeros, as for the mean of |g|^2.
    """
    return full(tree, 0, dtype, real=real)


def full(tree: Any, fill: Any, dtype: Any = None, *, real: bool = False) -> Any:
    """As `zeros`, with every entry `fill`."""

    def leaf(x):
        chosen = jnp.dtype(dtype or wide_dtype(x))
        if jnp.iscomplexobj(x) and not jnp.issubdtype(chosen, jnp.complexfloating) and not real:
            chosen = jnp.result_type(chosen, jnp.complex64)
        return jnp.full_like(x, fill, dtype=jnp.finfo(chosen).dtype if real else chosen)

    return map(leaf, tree)


def zeros_without(x: Any, axis: int) -> Array:
    """Zeros with the shape, dtype and sharding of an array that lost one dimension."""
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    sharding = _sharding(x)
    if isinstance(sharding, NamedSharding):
        spec = [*sharding.spec, *[None] * (x.ndim - len(sharding.spec))]
        sharding = NamedSharding(sharding.mesh, PartitionSpec(*spec[:axis], *spec[axis + 1 :]))
        return jnp.zeros(shape, x.dtype, device=sharding)
    return jnp.zeros(shape, x.dtype)


# Norms


def norm(tree: Any) -> Array:
    """The L2 norm of all leaves together, in float32 or wider: one reduction per leaf, and one of all their sums."""
    sums = [jnp.sum(abs_sq(x)) for x in jax.tree.leaves(widen(tree))]
    total = jnp.sum(jnp.stack(sums)) if sums else jnp.zeros(())
    return jnp.where(total > 0, root(total), total)


# Paths


def paths(tree: Any) -> list[str]:
    """Each leaf's path as its keys joined by "/", such as "encoder/0/kernel", in the order of `jax.tree.leaves`.

    The same for every container: dicts, lists, dataclasses, `flax.nnx.State` with or without its variables.
    """
    return [path_name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def path_name(path: tuple) -> str:
    """A key path as its keys joined by "/"."""
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # the array inside a variable of flax.nnx
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


# Checks and placement


def check_match(updates: Any, params: Any) -> None:
    """Raises if a leaf of either has no counterpart in the other, or has another shape; names it.

    The updates may hold None for a parameter without a gradient.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(updates, is_leaf=_is_none)
    for (path, u), p in zip(leaves, _flatten_up_to(structure, params, updates, "params"), strict=True):
        if u is not None and (p is None or jnp.shape(u) != jnp.shape(p)):
            found = "have none" if p is None else f"have {jnp.shape(p)}"
            raise MismatchError(f"updates{_show(path)} has shape {jnp.shape(u)}, params {found}")


def check_shapes(new: Any, old: Any) -> None:
    """Raises if an outgoing update has another shape than the incoming one, which the state then did not fit."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(old)
    for (path, x), y in zip(leaves, structure.flatten_up_to(new), strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise MismatchError(
                f"updates{_show(path)} has shape {jnp.shape(x)}, and the state was made for {jnp.shape(y)}"
            )


def place_beside(state: Any, params: Any) -> Any:
    """Puts the state's single-device leaves (counts, scalars) on the params' mesh, replicated.

    Without it the first compiled step would move them, and the second step would compile again.
    """
    meshes = {s.mesh for x in jax.tree.leaves(params) if isinstance(s := _sharding(x), NamedSharding)}
    if len(meshes) != 1 or (mesh := meshes.pop()).size == 1:
        return state
    replicated = NamedSharding(mesh, PartitionSpec())
    alone = lambda x: (s := _sharding(x)) is not None and len(s.device_set) == 1
    return map(lambda x: jax.device_put(x, replicated) if alone(x) else x, state)


def _sharding(x: Any) -> Any:
    return x.sharding if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else None


def _flatten_up_to(structure: Any, other: Any, tree: Any, name: str = "the state or params") -> list:
    try:
        return structure.flatten_up_to(other)
    except ValueError as error:
        mine, theirs = set(paths(tree)), set(paths(other))
        for missing, holder, lacker in ((theirs - mine, name, "updates"), (mine - theirs, "updates", name)):
            if missing:
                raise MismatchError(f"{lacker} lack the leaf {min(missing)!r}, which {holder} have") from error
        raise MismatchError(f"updates and {name} hold their leaves in different containers: {error}") from error


def _cast(x: Any, dtype: Any) -> Array:
    if isinstance(x, jax.Array) and x.dtype == dtype and not x.weak_type:
        return x
    return jax.lax.convert_element_type(x, dtype)


def _is_number(x: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(x), jnp.number) or jnp.issubdtype(jnp.result_type(x), jnp.bool_)


def _is_none(x: Any) -> bool:
    return x is None


def _show(path: tuple) -> str:
    return jax.tree_util.keystr(path).replace("'", '"')

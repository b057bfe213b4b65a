"""Which leaf is which: paths, and checks that two trees have the same leaves, whose errors name one."""

from typing import Any

import jax
import jax.numpy as jnp


class MismatchError(ValueError):
    """Two trees that should have the same leaves do not."""


def names(tree: Any) -> list[str]:
    """Each leaf's path as its keys joined by "/", such as "encoder/0/kernel", in the order of `jax.tree.leaves`.

    The same for every container: dicts, lists, dataclasses, `flax.nnx.State` with or without its variables.
    """
    return [name(path) for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def name(path: tuple) -> str:
    """A key path as its keys joined by "/"."""
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):  # the array inside a variable of flax.nnx
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def check_match(updates: Any, params: Any) -> None:
    """Raises if a leaf of either has no counterpart in the other, or has another shape; names it.

    The updates may hold None for a parameter without a gradient.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_none)
    for (path, u), p in zip(leaves, flatten_up_to(structure, params, updates, "params"), strict=True):
        if u is not None and (p is None or jnp.shape(u) != jnp.shape(p)):
            found = "have none" if p is None else f"have {jnp.shape(p)}"
            raise MismatchError(f"updates{shown(path)} has shape {jnp.shape(u)}, params {found}")


def check_shapes(new: Any, old: Any) -> None:
    """Raises if an outgoing update has another shape than the incoming one, which the state then did not fit."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(old)
    for (path, x), y in zip(leaves, structure.flatten_up_to(new), strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise MismatchError(
                f"updates{shown(path)} has shape {jnp.shape(x)}, and the state was made for {jnp.shape(y)}"
            )


def flatten_up_to(structure: Any, other: Any, tree: Any, holder: str = "the state or params") -> list:
    """The parts of `other` in the places of `tree`'s leaves, whose structure is given.

    Raises:
      MismatchError: a leaf of either has no counterpart; it is named.
    """
    try:
        return structure.flatten_up_to(other)
    except ValueError as error:
        mine, theirs = set(names(tree)), set(names(other))
        for missing, owner, lacker in ((theirs - mine, holder, "updates"), (mine - theirs, "updates", holder)):
            if missing:
                raise MismatchError(f"{lacker} lack the leaf {min(missing)!r}, which {owner} have") from error
        raise MismatchError(f"updates and {holder} hold their leaves in different containers: {error}") from error


def is_none(x: Any) -> bool:
    """For `is_leaf`, where None keeps a leaf's place."""
    return x is None


def shown(path: tuple) -> str:
    """A key path as in an error, `["dense"]["kernel"]`."""
    return jax.tree_util.keystr(path).replace("'", '"')

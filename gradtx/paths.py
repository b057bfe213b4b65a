"""Which leaf is which: paths, and checks that two trees have the same leaves, whose errors name one."""

import sys
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import jax
import jax.numpy as jnp

VALUE = jax.tree_util.GetAttrKey("value")  # what Flax's wrappers call the array that they hold


class MismatchError(ValueError):
    """Two trees that should have the same leaves do not."""


def names(tree: Any, is_leaf: Callable = lambda x: False) -> list[str]:
    """Each leaf's path as its keys joined by "/", such as "encoder/0/kernel", in the order of `jax.tree.leaves`.

    The same for every container: dicts, lists, dataclasses, `flax.nnx.State` with or without its variables. No two are
    equal: paths that would be, as keys hold "/", are written `["encoder/0"]["kernel"]`.
    """
    found = _paths(tree, is_leaf)
    joined = ["/".join(keys(path)) for path in found]
    times = Counter(joined)
    return [name if times[name] == 1 else shown(path) for name, path in zip(joined, found, strict=True)]


def keys(path: tuple) -> tuple[str, ...]:
    """A key path as strings; the same for a field, an attribute and a dict's key of one name."""
    return tuple(jax.tree_util.keystr((key,), simple=True) for key in path)


def all_keys(tree: Any) -> list[tuple[str, ...]]:
    """Each leaf's path as `keys`."""
    return [keys(path) for path in _paths(tree)]


def owner(path: tuple[str, ...], owners: Mapping[tuple[str, ...], Any]) -> tuple[str, ...] | None:
    """The parameter whose slot lies at a path in a state: the longest path of `owners` that the path ends with."""
    return next((path[n:] for n in range(len(path) + 1) if path[n:] in owners), None)


def _paths(tree: Any, is_leaf: Callable = lambda x: False) -> list[tuple]:
    """Each leaf's key path, as if Flax's wrappers around an array were that array."""

    def below(node):
        stop = lambda x: x is not node and (_is_wrapper(x) or is_leaf(x))
        for path, x in jax.tree_util.tree_flatten_with_path(node, is_leaf=stop)[0]:
            if _is_wrapper(x) and not is_leaf(x):
                yield from (path + (inner[1:] if inner[:1] == (VALUE,) else inner) for inner in below(x))
            else:
                yield path

    return [path[1:] for path in below([tree])]


def _is_wrapper(x: Any) -> bool:
    """Whether it is what Flax puts around an array, to tell more of it: a variable, or metadata."""
    kinds = (("flax.nnx", "Variable"), ("flax.core.meta", "AxisMetadata"))
    return isinstance(x, tuple(getattr(sys.modules[module], name) for module, name in kinds if module in sys.modules))


def _says_too_much(leaves: list, tree: Any) -> bool:
    """Whether a wrapper in `tree` tells a sharding, and holds an array of another shape among the leaves."""
    arrays = jax.tree.leaves(tree, is_leaf=is_none)
    shapes = [[getattr(x, "shape", 0) for x in xs] for xs in (leaves, arrays)]
    if len(arrays) != len(leaves) or shapes[0] == shapes[1]:
        return False
    wrappers = filter(_is_wrapper, jax.tree.leaves(tree, is_leaf=_is_wrapper))
    return any(getattr(x, name, None) for x in wrappers for name in ("out_sharding", "sharding_names", "names"))


def plain(tree: Any) -> Any:
    """The tree with each container that is not Python's own as an `OrderedDict` of what it holds; without wrappers.

    For what is remembered about leaves: a user's container may take nothing but what it was made for.
    """
    children = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is not tree)[0]
    if jax.tree_util.all_leaves([tree]) or not children:
        return tree
    if isinstance(tree, (dict, list, tuple)):
        within = jax.tree.structure(tree, is_leaf=lambda x: x is not tree)
        return within.unflatten([plain(x) for _, x in children])
    if _is_wrapper(tree) and len(children) == 1:
        return plain(children[0][1])
    return OrderedDict((keys(path)[0], plain(x)) for path, x in children)


def check_match(updates: Any, params: Any, *, or_none: bool = False) -> None:
    """Raises if a leaf of either has no counterpart in the other, or has another shape; names it.

    The updates may hold None for a parameter without a gradient; the params too, with `or_none`.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(updates, is_leaf=is_none)
    for (path, u), p in zip(leaves, aligned(structure, params, updates, "params")[1], strict=True):
        if or_none and p is None:
            continue
        if u is not None and (p is None or jnp.shape(u) != jnp.shape(p)):
            found = "have none" if p is None else f"have {jnp.shape(p)}"
            raise MismatchError(f"updates{shown(path)} has shape {jnp.shape(u)}, params {found}")


def check_shapes(new: Any, old: Any) -> None:
    """Raises if an outgoing update has another shape than the incoming one, which the state then did not fit."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(old)
    for (path, x), y in zip(leaves, aligned(structure, new, old)[1], strict=True):
        if jnp.shape(x) != jnp.shape(y):
            raise MismatchError(
                f"updates{shown(path)} has shape {jnp.shape(x)}, and the state was made for {jnp.shape(y)}"
            )


def aligned(structure: Any, other: Any, tree: Any, holder: str = "the state or params") -> tuple[Any, list]:
    """The parts of `other` in the places of `tree`'s leaves, None among them, and the structure that holds them there:
    `tree`'s own, which is given, or that of `plain(tree)`.

    Raises:
      MismatchError: a leaf of either has no counterpart; it is named.
    """
    try:
        return structure, structure.flatten_up_to(other)
    except ValueError as error:
        in_plain = jax.tree.structure(plain(tree), is_leaf=is_none)
        for same in (other, plain(other)):
            with suppress(ValueError):
                return in_plain, in_plain.flatten_up_to(same)
        mine, theirs = set(names(tree)), set(names(other))
        for missing, owner, lacker in ((theirs - mine, holder, "updates"), (mine - theirs, "updates", holder)):
            if missing:
                raise MismatchError(f"{lacker} lack the leaf {min(missing)!r}, which {owner} have") from error
        raise MismatchError(f"updates and {holder} hold their leaves in different containers: {error}") from error


def unflatten(structure: Any, leaves: list, tree: Any) -> Any:
    """The leaves in the structure of `tree`, which is given; or of `plain(tree)`, where a container refuses them, or
    says of the array in it how an array of another shape is sharded.
    """
    try:
        made = structure.unflatten(leaves)
        return plain(made) if _says_too_much(leaves, tree) else made
    except Exception:  # whatever a user's constructor raises when it is given None, or an array of another shape
        return jax.tree.structure(plain(tree), is_leaf=is_none).unflatten(leaves)


def outline(state: Any) -> str:
    """A state's type; of a chain's, its links' too."""
    if isinstance(state, dict):
        return "{" + ", ".join(f"{name}: {outline(x)}" for name, x in sorted(state.items())) + "}"
    return type(state).__name__ if isinstance(state, tuple) else "array" if hasattr(state, "shape") else repr(state)


def is_none(x: Any) -> bool:
    """For `is_leaf`, where None keeps a leaf's place."""
    return x is None


def shown(path: tuple) -> str:
    """A key path as in an error, `["dense"]["kernel"]`."""
    return jax.tree_util.keystr(path).replace("'", '"')

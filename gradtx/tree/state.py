"""Finding, replacing and mapping what a state holds."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.tree_util import DictKey, GetAttrKey, SequenceKey

from gradtx import paths


@dataclasses.dataclass(frozen=True)
class NamedTupleKey:
    """The step into a field of a named tuple, in the paths that `get_all_with_path` gives."""

    tuple_name: str  # the class, such as "ScaleByAdamState"
    name: str  # the field

    def __str__(self) -> str:
        return f"{self.tuple_name}.{self.name}"


def get_all_with_path(tree: Any, key: Any, filtering: Callable[[tuple, Any], bool] | None = None) -> list[tuple]:
    """Everything in a tree that has a name, with its path: (path, value).

    Args:
      key: a dict's key, a field's name, an attribute's, or the class of a named tuple.
      filtering: from a path and a value to whether it is wanted.

    Returns:
      In the order of the tree. A path's steps are JAX's keys, and `NamedTupleKey` into a named tuple.
    """
    return [(path, value) for path, value in _found(tree, key) if filtering is None or filtering(path, value)]


def get(tree: Any, key: Any, default: Any = None, filtering: Callable[[tuple, Any], bool] | None = None) -> Any:
    """What in a tree has a name. Arguments: `get_all_with_path`.

    A chain's own "count" stands for the counts of its links: where it is among what is found, and outside of the
    others, it is the answer.

    Args:
      default: the answer where nothing is found.

    Raises:
      KeyError: several things have the name; their paths are listed.
    """
    found = get_all_with_path(tree, key, filtering)
    holds_another = lambda path: any(other[: len(path)] == path != other for other, _ in found)
    found = [x for x in found if not holds_another(x[0])]
    if len(found) > 1 and key == "count":
        found = [x for x in found if all(_around(x[0], other) for other, _ in found)][:1] or found
    if len(found) > 1:
        places = ", ".join(_shown(path) or "the tree itself" for path, _ in found[:5])
        raise KeyError(f"`get`: {len(found)} values have the name {key!r}: {places}: choose one by `filtering`.")
    return found[0][1] if found else default


def set(tree: Any, filtering: Callable[[tuple, Any], bool] | None = None, /, **kwargs: Any) -> Any:
    """A copy of a tree in which everything of a name is replaced: `set(state, learning_rate=0.1)`.

    Args:
      filtering: from a path and a value to whether it is replaced.
      **kwargs: the new values by name; for names see `get_all_with_path`.

    Raises:
      KeyError: nothing has the name; or nothing that is wanted.
    """
    for key in kwargs:
        if not get_all_with_path(tree, key, filtering):
            what = "nothing in the tree has" if filtering is None else "nothing that `filtering` wants has"
            raise KeyError(f"`set`: {what} the name {key!r}.")

    def replaced(path: tuple, node: Any) -> Any:
        for name in _names(path, node):
            if isinstance(name, str) and name in kwargs and (filtering is None or filtering(path, node)):
                return kwargs[name]
        children = list(_children(node))
        if not children:
            return node
        return _with_children(node, [replaced((*path, step), child) for step, child in children])

    return replaced((), tree)


def map_params(
    initable: Any,
    f: Callable[..., Any],
    state: Any,
    /,
    *rest: Any,
    transform_non_params: Callable[..., Any] | None = None,
    is_leaf: Callable[[Any], bool] | None = None,
) -> Any:
    """Applies a function to everything in a state that is made like the parameters, such as moments: for shardings.

        specs = map_params(tx, lambda _, spec: spec, state, param_specs, transform_non_params=lambda _: PartitionSpec())

    Args:
      initable: a transformation, or its `init`.
      f: from a leaf of the state, and the leaves of `rest` for its parameter, to its replacement.
      state: the transformation's.
      *rest: trees with the parameters' structure.
      transform_non_params: for the other leaves: counts, scalars, and slots of another shape, such as Adafactor's rows.
        None leaves them.
      is_leaf: as for `jax.tree.map`.
    """
    init = getattr(initable, "init", initable)
    marked = init(_Params())
    is_params = lambda x: isinstance(x, _Params)
    shaped = _shapes(init)
    other = transform_non_params or (lambda x: x)

    def slot(path: tuple, mark: Any, part: Any) -> Any:
        if not is_params(mark) or not _made_like_params(path, shaped):
            return jax.tree.map(other, part)
        stop = lambda x: x is None or (is_leaf is not None and is_leaf(x))
        leaves, structure = jax.tree.flatten(part, is_leaf=stop)
        columns = [paths.aligned(structure, tree, part)[1] for tree in rest]
        rows = zip(leaves, *columns, strict=True)
        return structure.unflatten([None if row[0] is None else f(*row) for row in rows])

    return jax.tree_util.tree_map_with_path(slot, marked, state, is_leaf=is_params)


@jax.tree_util.register_pytree_node_class
class _Params:
    """A tree of parameters without a leaf: where a state's slot is made like the parameters, `init` leaves it."""

    def tree_flatten(self):
        return (), None

    @classmethod
    def tree_unflatten(cls, _, __):
        return cls()


PROBE = jax.ShapeDtypeStruct((256, 384), "float32")


def _shapes(init: Callable) -> Any:
    """The state of one parameter of a known shape; None where the transformation does not take it, as with a mask."""
    try:
        return jax.eval_shape(init, PROBE)
    except Exception:  # whatever a mask or a user's init raises for a parameter that it does not know
        return None


def _made_like_params(path: tuple, shaped: Any) -> bool:
    """Whether the slot at this path has the parameter's shape; yes, where that is not known."""
    if shaped is None:
        return True
    found = dict(jax.tree_util.tree_flatten_with_path(shaped)[0])
    return path not in found or found[path].shape == PROBE.shape


def _found(tree: Any, key: Any, path: tuple = ()) -> Iterator[tuple]:
    """What has the name, that of a node before what is deeper in its siblings."""
    if not path and key in _names(path, tree):
        yield path, tree
    children = [((*path, step), child) for step, child in _children(tree)]
    yield from ((place, child) for place, child in children if key in _names(place, child))
    for place, child in children:
        yield from _found(child, key, place)


def _names(path: tuple, node: Any) -> list:
    """What a node is called: by the step that leads to it, and by its class, if it is a named tuple."""
    step: Any = path[-1] if path else None
    by_step: list = []
    if isinstance(step, DictKey):
        by_step = [step.key]
    elif isinstance(step, (GetAttrKey, NamedTupleKey)):
        by_step = [step.name]
    return by_step + ([type(node).__name__] if hasattr(node, "_fields") else [])


def _children(node: Any) -> Iterator[tuple[Any, Any]]:
    if hasattr(node, "_fields"):
        name = type(node).__name__
        yield from ((NamedTupleKey(name, field), getattr(node, field)) for field in node._fields)
    elif isinstance(node, dict):
        yield from ((DictKey(key), x) for key, x in node.items())
    elif isinstance(node, (tuple, list)):
        yield from ((SequenceKey(i), x) for i, x in enumerate(node))
    else:
        stop = lambda x: x is not node
        yield from ((path[0], x) for path, x in jax.tree_util.tree_flatten_with_path(node, is_leaf=stop)[0] if path)


def _with_children(node: Any, children: list) -> Any:
    if hasattr(node, "_fields"):
        return type(node)(*children)
    if type(node) is dict:
        return dict(zip(node, children, strict=True))
    if isinstance(node, dict):
        children = [x for _, x in sorted(zip(node, children, strict=True), key=lambda pair: list(node).index(pair[0]))]
    structure = jax.tree.structure(node, is_leaf=lambda x: x is not node)
    return structure.unflatten(children)


def _around(path: tuple, other: tuple) -> bool:
    """Whether a chain's own count, at `path`, is of the chain that holds the other."""
    return isinstance(path[-1], DictKey) and other[: len(path) - 1] == path[:-1]


def _shown(path: tuple) -> str:
    return "".join(f".{step}" if isinstance(step, NamedTupleKey) else str(step) for step in path)

"""Choosing leaves: which parameters a transformation applies to."""

import re
from typing import Any, NamedTuple

import jax

from gradtx import leafwise, paths
from gradtx.combine.record import speaking_of
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.partial import on_part
from gradtx.recipe import PrintsAsCode
from gradtx.value import flag, part, state, static


def as_mask(owner: str, name: str, mask: Any) -> Any:
    """A mask in its stored, hashable form. The forms that users give:

    - None or True: every leaf;
    - a pytree of bools, with the parameters' structure or a prefix of it; compared by path, so that the container
      does not matter;
    - a function from the parameters' shapes (`jax.ShapeDtypeStruct`s, float32 or wider) to such a tree;
    - a pattern, or several: a regular expression searched in the leaf's path ("encoder/0/kernel"); True where one is
      found. A pattern that no path matches is an error.
    """
    if mask is None or isinstance(mask, _Paths):
        return mask
    if isinstance(mask, str) or (isinstance(mask, (tuple, list)) and mask and all(isinstance(m, str) for m in mask)):
        return (mask,) if isinstance(mask, str) else tuple(mask)
    if callable(mask) and _is_function(mask):
        return mask
    leaves = jax.tree.leaves(mask)
    for path, keep in zip(paths.names(mask), leaves, strict=True):
        if not _is_bool(keep):
            raise TypeError(
                f"`{owner}`: {name} must be a tree of bools, a function of the parameters, or path patterns; "
                f"got {keep!r} at {path!r}."
            )
    return _Paths.of(mask, map(bool, leaves))


def as_labels(owner: str, name: str, labels: Any) -> Any:
    """Labels in their stored, hashable form: a pytree of them, or a prefix of one; or a function, as for `as_mask`."""
    if isinstance(labels, _Paths) or (callable(labels) and jax.tree_util.all_leaves([labels])):
        return labels
    stored = _Paths.of(labels, jax.tree.leaves(labels))
    try:
        hash(stored)
    except TypeError as error:
        raise TypeError(f"`{owner}`: {name} must hold what can be hashed, such as strings: {error}.") from None
    return stored


class _Paths(PrintsAsCode, tuple):
    """Entries of a mask or of labels: (keys of a path, value), sorted. Prints as a dict, which means the same."""

    @classmethod
    def of(cls, tree: Any, values: Any) -> "_Paths":
        """The entries of a tree, with these values."""
        return cls(sorted(zip(paths.all_keys(tree), values, strict=True), key=lambda entry: entry[0]))

    def recipe(self) -> Any:
        shown: Any = {}
        for keys, keep in self:
            if not keys:
                return keep
            place = shown
            for key in keys[:-1]:
                place = place.setdefault(key, {})
            place[keys[-1]] = keep
        return shown


def _is_function(mask: Any) -> bool:
    """Whether what can be called is to be called: a function or a partial one, not a module that holds bools."""
    leaves = jax.tree.leaves(mask)
    return isinstance(mask, jax.tree_util.Partial) or not leaves or not all(map(_is_bool, leaves))


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool) or str(getattr(x, "dtype", "")) == "bool"


def chosen(mask: Any, params: Any, owner: str) -> Any:
    """A tree that holds True where the mask, from `as_mask`, chooses a leaf of `params`; in plain containers.

    Raises:
      ValueError: a leaf has no entry in the mask, or a pattern matches no leaf.
    """
    names = paths.names(params)
    if callable(mask):
        mask = as_mask(owner, "mask", mask(jax.eval_shape(leafwise.widen, params)))
    if mask is None:
        keep = [True] * len(names)
    elif isinstance(mask, _Paths):
        keep = _entries(mask, paths.all_keys(params), names, owner)
    else:
        for pattern in mask:
            if names and not any(re.search(pattern, name) for name in names):
                raise ValueError(f"`{owner}`: the mask's pattern {pattern!r} matches none of the paths {names}.")
        keep = [any(re.search(pattern, name) for pattern in mask) for name in names]
    return jax.tree.unflatten(jax.tree.structure(paths.plain(params)), keep)


def labelled(labels: Any, params: Any, owner: str) -> list[tuple[str, Any]]:
    """The name and the label of each leaf of `params`, from `as_labels`.

    Raises:
      ValueError: a leaf has no label.
    """
    names = paths.names(params)
    if callable(labels):
        labels = as_labels(owner, "param_labels", labels(jax.eval_shape(leafwise.widen, params)))
    return list(zip(names, _entries(labels, paths.all_keys(params), names, owner, "labels"), strict=True))


def _entries(
    mask: _Paths, leaves: list[tuple[str, ...]], names: list[str], owner: str, what: str = "mask"
) -> list[Any]:
    """The entry of each leaf: that of its longest prefix. A prefix may also be written as one key, "encoder/0"."""
    entries, meant, keep = dict(mask), {}, []
    for keys, name in zip(leaves, names, strict=True):
        prefixes = [keys[:n] for n in range(len(keys), -1, -1)]
        found = [(key, prefix) for prefix in prefixes for key in (prefix, ("/".join(prefix),)) if key in entries]
        if not found:
            raise ValueError(f"`{owner}`: the {what} has no entry for {name!r}; it is {mask!r}.")
        key, prefix = found[0]
        if meant.setdefault(key, prefix) != prefix:
            raise ValueError(
                f"`{owner}`: the {what}'s {key[0]!r} may mean {meant[key]} or {prefix}: write it as a tree like "
                "the parameters."
            )
        keep.append(entries[key])
    return keep


@state
class MaskedNode(NamedTuple):
    """What Optax puts in the place of a leaf that a mask leaves out. Here that is None; the class is for programs
    that ask.
    """


@state
class MaskedState(NamedTuple):
    """State of `masked`, and of a group of `partition`."""

    inner_state: State  # of the chosen leaves alone: None in the place of each other one


@transformation
class masked(GradientTransformation):
    """Applies a transformation to the chosen leaves; the others' updates pass through as they are.

    To freeze the others instead, give them no gradient (None), or chain a transformation that zeroes them.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair.
      mask: a pytree of bools (or a prefix), a function of the parameters, or path patterns; see `add_decayed_weights`.

    State: the inner one's, for the chosen leaves alone; the others cost nothing. Reads: what the inner one reads.
    Differs from Optax: leaves that are not chosen are None, not `MaskedNode`, in the inner state; a function is given
      shapes, the same at every call.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    mask: Any = static(convert=as_mask)
    mask_compatible_extra_args: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return MaskedState(self.inner.bare_init(kept(params, chosen(self.mask, params, self.name))))

    def state_at(self, count):
        return MaskedState(self.inner.state_at(count))

    def eval_params(self, state, params):
        inside = self.inner.eval_params(state.inner_state, kept(params, chosen(self.mask, params, self.name)))
        return leafwise.choose(lambda p, x: p if x is None else x, params, inside)

    def update(self, updates, state, params=None, **extra):
        mask = chosen(self.mask, updates if params is None else params, self.name)
        if not jax.tree.leaves(kept(updates, mask)):
            return updates, state
        extra = kept_extra(extra, mask, updates) if self.mask_compatible_extra_args else extra
        outgoing, inner = update_part(self.inner, mask, updates, state.inner_state, params, extra)
        return leafwise.choose(lambda g, u: g if u is None else u, updates, outgoing), MaskedState(inner)


def kept(values: Any, mask: Any) -> Any:
    """The values where a mask from `chosen` holds True, None elsewhere."""
    return leafwise.choose(lambda x, keep: x if keep else None, values, mask)


def kept_extra(extra: dict, mask: Any, updates: Any) -> dict:
    """Extra arguments, those with the updates' structure masked."""
    structure = jax.tree.structure(updates)
    return {name: kept(x, mask) if jax.tree.structure(x) == structure else x for name, x in extra.items()}


def update_part(
    inner: GradientTransformation, mask: Any, updates: Any, state: State, params: Any, extra: dict
) -> tuple[Any, State]:
    """The inner transformation's update of the leaves that a mask chooses."""
    part_params = None if params is None else kept(params, mask)
    part_updates = kept(updates, mask)
    with speaking_of(part_updates if params is None else part_params):
        return inner.bare_update(part_updates, state, part_params, **on_part(extra, params))

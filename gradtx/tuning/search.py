"""From a search space to members: every combination, random draws; stacked, so that one program trains them all."""

import itertools
import operator
from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from gradtx import keys, paths
from gradtx.tuning.space import Distribution, is_distribution, plain

Space: TypeAlias = Any  # pytree that holds distributions in the place of numbers
Stacked: TypeAlias = Any  # pytree whose every leaf has a leading axis: one entry for each member


def grid(space: Space) -> Stacked:
    """Every combination of a space's choices, stacked.

    The first distribution, in the order of `jax.tree.leaves`, varies slowest. What is no distribution is repeated.

    Args:
      space: a pytree whose distributions are all `choice`.

    Raises:
      ValueError: there is no distribution, or another one than `choice`; its path is named.
    """
    axes = distributions("grid", space)
    for name, distribution in axes.items():
        if not distribution.discrete:
            raise ValueError(
                f"`grid`: {name!r} is {distribution!r}, which has no finite number of values. Choose some, such as "
                "`choice(np.geomspace(low, high, 5))`, or draw with `random`."
            )
    combinations = list(itertools.product(*(axis.support for axis in axes.values())))
    columns = zip(axes.values(), zip(*combinations, strict=True), strict=True)
    return fill(space, [jnp.asarray(x, jnp.result_type(*axis.support)) for axis, x in columns], len(combinations))


def random(key: Any, space: Space, n: int) -> Stacked:
    """Independent draws of every distribution in a space, stacked. What is no distribution is repeated.

    Args:
      key: an int, or a key of `jax.random`.
      space: a pytree that holds distributions.
      n: members, at least 1.

    Source: Bergstra, Bengio, Random search for hyper-parameter optimization, JMLR 13, 2012.
    """
    n = whole("random", "n", n)
    key = keys.typed(keys.checked("random", "key", key))
    axes = distributions("random", space).values()
    return fill(space, [axis.sample(jax.random.fold_in(key, i), (n,)) for i, axis in enumerate(axes)], n)


def stack(members: Sequence[Any]) -> Stacked:
    """Members one by one, as one stacked pytree: `stack([adam(1e-3), adam(1e-2)])`.

    Raises:
      ValueError: there is no member, or two differ in structure or in a leaf's shape; it says where.
    """
    members = list(members)
    if not members:
        raise ValueError("`stack`: members is empty: give at least one.")
    columns = zip(*(_leaves_like(members[0], i, other) for i, other in enumerate(members)), strict=True)
    stacked = []
    for name, column in zip(paths.names(members[0]), columns, strict=True):
        shapes = [jnp.shape(x) for x in column]
        if len(set(shapes)) > 1:
            i = next(i for i, shape in enumerate(shapes) if shape != shapes[0])
            raise ValueError(f"`stack`: {name!r} has shape {shapes[0]} in member 0 and {shapes[i]} in member {i}.")
        numbers = not any(isinstance(x, jax.Array) for x in column)
        stacked.append(jnp.asarray(np.stack(column), jnp.result_type(*column)) if numbers else jnp.stack(column))
    return jax.tree.unflatten(jax.tree.structure(members[0]), stacked)


def size(stacked: Stacked) -> int:
    """How many members a stacked pytree holds.

    Raises:
      ValueError: it has no leaves, a leaf has no leading axis, or two leaves disagree; it is named.
    """
    names, leaves = paths.names(stacked), jax.tree.leaves(stacked)
    if not leaves:
        raise ValueError("`size`: there are no leaves, so nothing is stacked.")
    for name, x in zip(names, leaves, strict=True):
        if jnp.ndim(x) == 0:
            raise ValueError(
                f"`size`: {name!r} is {x!r}, without an axis of members: stack members with `stack`, or draw them "
                "with `random` or `grid`."
            )
        if len(x) != len(leaves[0]):
            raise ValueError(f"`size`: {names[0]!r} holds {len(leaves[0])} members, {name!r} holds {len(x)}.")
    return len(leaves[0])


def member(stacked: Stacked, i: int) -> Any:
    """One member. Its scalars are Python numbers, so that a transformation prints as the code that builds it.

    A float32 becomes the shortest decimal that rounds to it: 0.1, not 0.10000000149011612.

    Args:
      i: from 0, or from -1 backwards.
    """
    n, i = size(stacked), operator.index(i)
    if not -n <= i < n:
        raise IndexError(f"`member`: i must lie in [{-n}, {n}), as there are {n} members, got {i}.")

    def leaf(x):
        is_number = x.ndim == 1 and not jnp.issubdtype(x.dtype, jax.dtypes.extended)
        return plain(x[i]) if is_number else x[i]

    return jax.tree.map(leaf, stacked)


@jax.jit
def take(stacked: Stacked, places: ArrayLike) -> Stacked:
    """The members at these places, stacked in that order; a place may come more than once."""
    return jax.tree.map(lambda x: x[places], stacked)


def distributions(owner: str, space: Space) -> dict[str, Distribution]:
    """A space's distributions by path, in the order of `jax.tree.leaves`. Raises where there is none."""
    names, leaves = paths.names(space, is_distribution), jax.tree.leaves(space, is_leaf=is_distribution)
    found = {name or "space": x for name, x in zip(names, leaves, strict=True) if is_distribution(x)}
    if not found:
        raise ValueError(f"`{owner}`: empty search space: {space!r} holds no distribution, such as `log_uniform`.")
    return found


def fill(space: Space, columns: Sequence[Any], n: int) -> Stacked:
    """The space with an array of n values in each distribution's place, and n copies of whatever else it holds."""
    leaves, structure = jax.tree.flatten(space, is_leaf=is_distribution)
    column = iter(columns)

    def leaf(x):
        if is_distribution(x):
            return next(column)
        x = x if isinstance(x, jax.Array) else np.asarray(x, jnp.result_type(x))
        return jnp.broadcast_to(x, (n, *x.shape))

    return structure.unflatten(map(leaf, leaves))


def whole(owner: str, name: str, x: Any, least: int = 1) -> int:
    """`x` as a Python integer, at least `least`."""
    if isinstance(x, bool) or not hasattr(x, "__index__"):
        raise TypeError(f"`{owner}`: {name} must be a whole number, got {x!r} of type {type(x).__name__}.")
    if operator.index(x) < least:
        raise ValueError(f"`{owner}`: {name} must be at least {least}, got {x!r}.")
    return operator.index(x)


def _leaves_like(first: Any, i: int, other: Any) -> list:
    leaves, structure = jax.tree.flatten(other)
    if structure == jax.tree.structure(first):
        return leaves
    advice = "Members of one population have one structure: make a population for each."
    mine, theirs = set(paths.names(first)), set(paths.names(other))
    for missing, owner, lacker in ((mine - theirs, 0, i), (theirs - mine, i, 0)):
        if missing:
            raise ValueError(
                f"`stack`: member {lacker} lacks the leaf {min(missing)!r}, which member {owner} has. {advice}"
            )
    try:
        jax.tree.structure(first).flatten_up_to(other)
        difference = f"{structure} is not {jax.tree.structure(first)}"
    except ValueError as error:
        difference = error
    raise ValueError(f"`stack`: member {i} differs from member 0 in what is no leaf: {difference}. {advice}")

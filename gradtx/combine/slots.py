"""The slots of a state: which of its arrays belong to which parameter, and under what name."""

from collections.abc import Sequence
from typing import Any

import jax

from gradtx import paths


def slots(state: Any, names: Sequence[str], params: Any) -> list[tuple[int, int]]:
    """The arrays that a state of any depth holds under some names, one for each parameter and of its shape.

    A field or a key of such a name is found wherever it is: in a chain's state, a mask's, a partition's.

    Args:
      names: such as "mu".
      params: a tree with the parameters' structure and shapes, such as the updates.

    Returns:
      Pairs of places: of the array among the state's leaves, and of its parameter among those of `params`.
    """
    leaves, of = jax.tree.leaves(state), jax.tree.leaves(params)
    by_path = {path: i for i, path in enumerate(paths.all_keys(params))}
    found = []
    for i, keys in enumerate(paths.all_keys(state)):
        end = paths.owner(keys[1:], by_path)
        if end is not None and keys[-len(end) - 1] in names and leaves[i].shape == of[by_path[end]].shape:
            found.append((i, by_path[end]))
    return found

"""How far a parameter is from the head, and learning rates that fall with it."""

import re
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.core import GradientTransformation, transformation
from gradtx.labels.naming import HEAD, Leaf, is_embedding, leaves, like
from gradtx.value import number, static


def _pattern(owner: str, name: str, x: Any) -> str | None:
    if x is None:
        return None
    try:
        if re.compile(x).groups:
            return x
        problem = "there is none"
    except (re.error, TypeError) as error:
        problem = str(error)
    raise ValueError(
        f"`{owner}`: {name} must be a regular expression with a group for the number, got {x!r}: {problem}."
    )


def depths(params: Any, layer: str | None = None) -> Any:
    """How many layers lie between each parameter and the head: a tree, also for `gradtx.partition` or `table`.

        head and what else has no number: 0        layer i of n: n - i, i from 0        embeddings: n + 1

    A layer's number is the first name in the path that is a number, or ends in one where others of that name, in the
    same place, have other numbers: "blocks/3/...", "layer_3/...", "params/Dense_3/...". Layers of another name, such as
    those of a decoder, are counted for themselves. A leaf that holds a stack of n layers along its first axis, each
    with a bias or a normalization (see `roles`), has the depths `range(n, 0, -1)`. Embeddings are what `roles` calls
    so, and what else stands in a module so named.

    Args:
      params: arrays, or `jax.ShapeDtypeStruct`s, in any container.
      layer: where the numbers are found otherwise: a regular expression whose first group is the number, such as
        `r"stages/(\\d+)/"`; what it is not found in has none.
    """
    found = leaves(params)
    numbers = [_numbered(leaf, found) for leaf in found] if layer is None else [_searched(layer, x) for x in found]
    last = {}
    for place in filter(None, numbers):
        last[place[0]] = max(place[1], last.get(place[0], 0))

    def depth(leaf: Leaf, place: tuple[Any, int] | None) -> int | range:
        if place is not None:
            return last[place[0]] - place[1] + 1
        if leaf.layers:
            return range(leaf.layers, 0, -1)
        return deepest + 1 if leaf.role == "embedding" or is_embedding(leaf.words) else 0

    tops = [last[place[0]] - place[1] + 1 for place in filter(None, numbers)]
    deepest = max([*tops, *[leaf.layers for leaf in found]], default=0)
    if layer is not None and found and not tops:
        raise ValueError(f"`depths`: the pattern {layer!r} is found in no path; the first is {found[0].name!r}.")
    return like(params, [depth(leaf, place) for leaf, place in zip(found, numbers, strict=True)])


def _searched(layer: str, leaf: Leaf) -> tuple[Any, int] | None:
    match = re.search(layer, leaf.name)
    return (None, int(match[1])) if match else None


def _numbered(leaf: Leaf, all_leaves: list[Leaf]) -> tuple[Any, int] | None:
    """The place and the number of the layer that a leaf is in."""
    for n, word in enumerate(leaf.words):
        if re.fullmatch(HEAD, word) or is_embedding((word,)):
            return None
        stem, number = re.fullmatch(r"(.*?)(\d*)", word).groups()  # pyright: ignore[reportOptionalMemberAccess]
        if not number:
            continue
        others = re.compile(re.escape(stem) + r"\d+")
        beside = {x.words[n] for x in all_leaves if x.words[:n] == leaf.words[:n] and len(x.words) > n}
        if not stem or sum(others.fullmatch(other) is not None for other in beside) > 1:
            return (leaf.words[:n], stem), int(number)
    return None


@transformation
class layerwise_decay(GradientTransformation):
    """Multiplies the updates of each layer by a factor that falls with its distance from the head.

        u = decay^d g        d = 0 for the head, 1 for the last layer, ..., n + 1 for the embeddings of n layers

    For fine-tuning, behind the method, so that it multiplies the learning rate and the weight decay with it:
    `chain(adamw(1e-3), layerwise_decay(0.75))`. A stack of layers in one leaf gets a factor for each along its first
    axis. `print(labels.table(labels.depths, params))` shows what was decided.

    Args:
      decay: in (0, 1], a number or a schedule; 0.65 to 0.9 is usual. At 1 nothing changes.
      layer: where the layers' numbers are, if not where `labels.depths` finds them.

    State: the time. Reads: updates and, where given, the params' names and shapes.
    Raises:
      ValueError: `layer` is found in no path.
    Source: Howard, Ruder, Universal language model fine-tuning for text classification, ACL 2018 (arXiv:1801.06146,
      there with 1/2.6); Clark et al., ELECTRA, ICLR 2020 (arXiv:2003.10555). In Optax: `partition`, and a label and a
      `scale` for each layer.
    """

    decay: Hyperparameter = number(within="(0, 1]")
    layer: str | None = static(default=None, convert=_pattern)

    def update(self, updates, state, params=None, **extra):
        (decay,) = at(state.count, self.decay)

        def leaf(g, depth):
            if not isinstance(depth, range):
                return g * decay**depth
            powers = jnp.asarray(np.reshape(depth, (-1,) + (1,) * (g.ndim - 1)), jnp.finfo(g.dtype).dtype)
            return g * decay**powers

        distances = depths(updates if params is None else params, self.layer)
        return leafwise.map(leaf, updates, distances), ClockState(tick(state.count))

"""The mean of the examples' gradients, of a batch and of several micro-batches."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import as_float, start, tick
from gradtx.combine.chain import chain
from gradtx.core import EmptyState, GradientTransformation, Updates, transformation
from gradtx.placement import differing_like
from gradtx.transforms.per_example import beside
from gradtx.value import state, static, whole

PerElementUpdates: TypeAlias = Any  # updates with axes for the examples
AggregatedUpdates: TypeAlias = Any  # without
MaybeAxis: TypeAlias = Any  # an axis, several, or None


def axes_of_examples(owner: str, name: str, axes: Any) -> Any:
    """The axes in their stored form, an int or a tuple of ints."""
    found = (axes,) if isinstance(axes, int) else tuple(axes) if isinstance(axes, Sequence) else ()
    if not found or not all(isinstance(i, int) for i in found):
        raise TypeError(f"`{owner}`: {name} must be an axis or several, got {axes!r}.")
    return axes if isinstance(axes, int) else found


def get_batch_size_from_per_elt_updates(per_elt_updates: Updates, per_elt_axis: int | Sequence[int]) -> int:
    """How many examples there are: the length of their axis, or the product of the lengths of several.

    Raises:
      ValueError: a leaf has no such axis, or another number.
    """
    axes = (per_elt_axis,) if isinstance(per_elt_axis, int) else tuple(per_elt_axis)
    shapes = [jnp.shape(g) for g in jax.tree.leaves(per_elt_updates)]
    if any(not -len(shape) <= i < len(shape) for shape in shapes for i in axes):
        raise ValueError(f"the gradients of examples must have the axes {axes}; the shapes are {shapes}.")
    sizes = [math.prod(shape[i] for i in axes) for shape in shapes]
    if len({*sizes}) > 1:
        raise ValueError(f"the gradients must be of one number of examples, got {sizes}.")
    return sizes[0] if sizes else 1


@transformation
class average_per_element_updates(GradientTransformation):
    """Replaces the gradients of examples by their mean.

    Args:
      per_elt_axis: the axis of the examples, or several.

    State: none. Reads: the gradients of examples.
    """

    per_elt_axis: Any = static(default=0, convert=axes_of_examples)

    @property
    def of_examples(self) -> bool:
        return True

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        get_batch_size_from_per_elt_updates(updates, self.per_elt_axis)
        means = leafwise.map(lambda g: jnp.mean(g, axis=self.per_elt_axis), updates)
        return beside(params, means), state


@state
class AccumulateAvgUpdatesState(NamedTuple):
    """State of `accumulate_avg_updates`."""

    micro_step: Array  # int32 scalar: micro-batches since the last mean went out
    ready: Array  # bool scalar: whether one went out at the last call
    avg_grad: Updates  # mean of the gradients since, float32 or wider


@transformation
class accumulate_avg_updates(GradientTransformation):
    """Lets the mean of the gradients of k micro-batches out at every k-th call, and 0 at the others.

    For `process`, whose postprocessor then runs at every k-th call alone. For a transformation around another see
    `MultiSteps`.

    Args:
      accumulation_steps: k, at least 1. With 1 there is no state.

    State: 5 bytes, and 4 per float32 parameter. Reads: updates only.
    Differs from Optax: one infinite gradient does not stay in the mean.
    """

    accumulation_steps: int = whole(within="[1, inf)")

    def init(self, params):
        if self.accumulation_steps == 1:
            return EmptyState()
        state = AccumulateAvgUpdatesState(start(), jnp.array(False), leafwise.zeros(params))
        return differing_like(state, params)

    def update(self, updates, state, params=None, **extra):
        if self.accumulation_steps == 1:
            return updates, state
        count = tick(state.micro_step)
        ready, share = count == self.accumulation_steps, 1 / as_float(count)

        def leaf(g, mean):
            mean = mean + (g - mean) * share
            return jnp.where(ready, mean, jnp.zeros_like(mean)), jnp.where(ready, jnp.zeros_like(mean), mean)

        outgoing, means = leafwise.unzip_map(leaf, updates, state.avg_grad, outputs=2)
        return outgoing, AccumulateAvgUpdatesState(jnp.where(ready, 0, count), ready, means)


def average_incrementally_updates(
    per_elt_axis: int | Sequence[int] | None, accumulation_steps: int
) -> GradientTransformation:
    """The mean over the examples of k micro-batches. Arguments: `average_per_element_updates`,
    `accumulate_avg_updates`.

    Args:
      per_elt_axis: None: the gradients are means already.
    """
    accumulate = accumulate_avg_updates(accumulation_steps)
    return accumulate if per_elt_axis is None else chain(average_per_element_updates(per_elt_axis), accumulate)

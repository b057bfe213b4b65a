"""Transformations that apply at some steps."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax.numpy as jnp
from jax import Array

from gradtx.clock import start, tick, time
from gradtx.combine.branch import update_if
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.value import flag, part, state, static


class ConditionFn(Protocol):
    """The type of a condition: from the count of updates seen, and the extra arguments if asked for, to a bool
    scalar.
    """

    def __call__(self, step: Array, **extra_args: Any) -> Array:
        """Whether to apply the transformation now."""
        ...


@state
class ConditionallyTransformState(NamedTuple):
    """State of `conditionally_transform`."""

    inner_state: State  # as if the other updates had never been asked for
    step: Array  # int32 scalar: updates seen so far


@state
class ConditionallyMaskState(NamedTuple):
    """State of `conditionally_mask`."""

    step: Array  # int32 scalar: updates seen so far
    inner_state: State  # as if the other updates had never been asked for


@transformation
class conditionally_transform(GradientTransformation):
    """Applies a transformation where a condition holds; elsewhere the updates pass through, and its state stays.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair.
      should_transform_fn: from the count of updates seen so far, 0 at the first, to a bool scalar.
      forward_extra_args: give it the extra arguments of `update`, too.

    State: 4 bytes and the inner one's. Reads: what the inner one reads. What in it keeps no time of its own lives by
      the count of updates seen.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    should_transform_fn: Callable = static()
    forward_extra_args: bool = flag(default=False)

    def init(self, params):
        return ConditionallyTransformState(self.inner.bare_init(params), start())

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)

    def update(self, updates, state, params=None, **extra):
        outgoing, inner_state = _made(self, updates, state, params, updates, extra)
        return outgoing, ConditionallyTransformState(inner_state, tick(state.step))


@transformation
class conditionally_mask(GradientTransformation):
    """Applies a transformation where a condition holds; elsewhere updates become 0, and its state stays.

    Args:
      inner, should_transform_fn, forward_extra_args: as in `conditionally_transform`.

    State: 4 bytes and the inner one's. Reads: what the inner one reads.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    should_transform_fn: Callable = static()
    forward_extra_args: bool = flag(default=False)

    def init(self, params):
        return ConditionallyMaskState(start(), self.inner.bare_init(params))

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)

    def update(self, updates, state, params=None, **extra):
        outgoing, inner_state = _made(self, updates, state, params, None, extra)
        return outgoing, ConditionallyMaskState(tick(state.step), inner_state)


def _made(tx: Any, updates: Any, state: Any, params: Any, instead: Any, extra: dict) -> tuple:
    """Updates and state of the inner transformation, if the condition holds."""
    condition = tx.should_transform_fn(state.step, **(extra if tx.forward_extra_args else {}))
    with time(state.step):
        make = lambda: tx.inner.bare_update(updates, state.inner_state, params, **extra)
        return update_if(jnp.asarray(condition), make, instead, state.inner_state)

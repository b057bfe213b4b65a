"""What remembers nothing: the identity, nothing at all, and plain functions of the updates."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.core import EmptyState, GradientTransformation, Params, as_transformation, transformation
from gradtx.value import static


@transformation
class identity(GradientTransformation):
    """Leaves the updates as they are. No state."""

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        return updates, state


@transformation
class set_to_zero(GradientTransformation):
    """Replaces every update by 0, so that parameters stay as they are. No state."""

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        return leafwise.map(jnp.zeros_like, updates), state


@transformation
class stateless(GradientTransformation):
    """Applies a function to the updates.

        u = f(g, p)

    Args:
      f: from the updates and the parameters (None where the caller gives none) to the updates. It may be called with
        float32 or wider arrays, whatever the leaves' dtype.

    State: none. Reads: what the function reads.
    """

    f: Callable = static()

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        return self.f(updates, params), state


@transformation
class stateless_with_tree_map(GradientTransformation):
    """Applies a function to each leaf of the updates.

        u = f(g, p)         p is None where the caller gives no parameters

    Args:
      f: from an array of the updates and its parameter to an array of that shape. It must depend on its arguments
        alone: leaves that look alike are computed by one trace.

    State: none. Reads: what the function reads.
    """

    f: Callable = static()

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        if params is None:
            return leafwise.map(lambda g: self.f(g, None), updates), state
        return leafwise.map(lambda g, p: self.f(g, p), updates, params), state


def with_extra_args_support(tx: Any) -> GradientTransformation:
    """The transformation, or a foreign `(init, update)` pair made one: every one takes any keyword argument here."""
    return as_transformation("with_extra_args_support", "tx", tx)


def init_empty_state(params: Params) -> EmptyState:
    """The `init` of a transformation that remembers nothing."""
    del params
    return EmptyState()

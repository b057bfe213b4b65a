"""Parameters of few bits that learn: a copy of each in float32."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.types import Points
from gradtx.value import part, state

FARTHEST = 2.0**-7  # of a parameter's magnitude: from its copy, where it is its rounding (2^-9 in bfloat16)
SMALLEST = 2.0**-24  # what float16 rounds to 0


@state
class MasterWeightsState(NamedTuple):
    """State of `master_weights`."""

    weights: Points  # of each parameter narrower than float32 a copy in float32; None for the others
    inner_state: State


@transformation
class master_weights(GradientTransformation):
    """Trains a float32 copy of each parameter that is narrower, and moves the parameter to the copy, rounded.

        tx = master_weights(adamw(1e-4))

        w <- w + inner's update at w
        u = w - p                                p + u, which is rounded to the nearest, is w

    Without it bfloat16 stands still where steps are below 2^-9 of a weight: 1 minus 0.001, a thousand times, is 1.

    A parameter that is no rounding of its copy (farther than 2^-7 of its magnitude) was set by the program: the copy
    starts anew from it.

    Args:
      inner: a transformation that ends in a descent step, or a foreign `(init, update)` pair; it sees the copies.

    State: 4 bytes per parameter narrower than float32, and the inner one's. Reads: params; what the inner one reads.
    Raises:
      ValueError: no params.
    Source: Micikevicius et al., Mixed precision training, ICLR 2018 (arXiv:1710.03740), section 3.1. `split_weights` is
      the same for bfloat16 in 2 bytes per parameter.
    """

    inner: GradientTransformation = part(convert=as_transformation)

    def init(self, params):
        copies = copied(params, lambda p: leafwise.wide_dtype(p) != p.dtype)
        return MasterWeightsState(copies, self.inner.bare_init(in_place(copies, params)))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        weights = leafwise.map(_current, state.weights, params)
        whole = in_place(weights, params)
        outgoing, inner = self.inner.bare_update(updates, state.inner_state, whole, **extra)
        outgoing, weights = leafwise.unzip_map(_moved, outgoing, weights, params, outputs=2)
        return outgoing, MasterWeightsState(weights, inner)

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)


def copied(params: Params, which: Callable[[Any], bool]) -> Params:
    """Copies of some parameters in float32 or wider, None in the place of the others."""
    return leafwise.widen(geometry.copied(leafwise.choose(lambda p: p if which(p) else None, params)))


def in_place(copies: Params, params: Params) -> Params:
    """The parameters, and for those that have one, their copy."""
    return leafwise.choose(lambda p, w: p if w is None else w, params, copies)


def _current(w: Array, p: Array) -> Array:
    return jnp.where(jnp.abs(w - p) > FARTHEST * jnp.abs(p) + SMALLEST, p, w)


def _moved(u: Array, w: Any, p: Array) -> tuple[Array, Any]:
    return (u, None) if w is None else (w + u - p, w + u)

"""Steps that must not be taken."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import start, tick
from gradtx.collectives import Axis, as_axis, names
from gradtx.combine.branch import update_if
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.placement import differing_like
from gradtx.value import part, state, static


@state
class ApplyIfFiniteState(NamedTuple):
    """State of `apply_if_finite`."""

    notfinite_count: Array  # int32 scalar: updates skipped in a row, up to the last one
    last_finite: Array  # bool scalar: whether the last update was made
    total_notfinite: Array  # int32 scalar: updates skipped so far
    inner_state: State  # as if the skipped updates had never been asked for


@transformation
class apply_if_finite(GradientTransformation):
    """Skips an update whole where a gradient holds NaN or an infinity.

        u = inner(g), next state    if every entry of g is finite
        u = 0, the same state       otherwise: moments, counts and schedules inside stay as they were

    Args:
      inner: a transformation, or a foreign `(init, update)` pair; the whole chain, so that nothing in it moves.
      max_consecutive_errors: not read.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which no device takes the step unless
        every one's gradients are finite. None: each decides for itself, and devices that hold one set of parameters
        part.

    State: 9 bytes and the inner one's. Reads: what the inner one reads; gradients once more. With `adamw` on a CPU a
      step moves 58 bytes per parameter instead of 40 (compiled program, float32): updates leave the branch.
    Differs from Optax: NaN is never let in. Optax applies it after `max_consecutive_errors`, which is taken here and
      changes nothing; a program that should give up reads `notfinite_count` and stops.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    max_consecutive_errors: Any = static(default=None)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        state = ApplyIfFiniteState(start(), jnp.array(True), start(), self.inner.bare_init(params))
        return differing_like(state, params, but=names(self.axis))

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)

    def update(self, updates, state, params=None, **extra):
        finite = ~leafwise.anywhere(lambda g: ~jnp.isfinite(g), updates, axis=self.axis)
        make = lambda: self.inner.bare_update(updates, state.inner_state, params, **extra)
        outgoing, inner_state = update_if(finite, make, None, state.inner_state)
        record(skipped=lambda: ~finite)
        keep = lambda new, old: jnp.where(finite, new, old)
        return outgoing, ApplyIfFiniteState(
            notfinite_count=keep(0, tick(state.notfinite_count)),
            last_finite=finite,
            total_notfinite=keep(state.total_notfinite, tick(state.total_notfinite)),
            inner_state=inner_state,
        )

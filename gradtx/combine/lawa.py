"""LAWA (Kaddour, 2022): the mean of the latest checkpoints."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import start, tick, time
from gradtx.combine.masking import as_mask, chosen, kept
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.paths import plain
from gradtx.placement import zeros_of_axes
from gradtx.types import Points
from gradtx.value import part, state, static, storage_dtype, whole


@state
class LawaState(NamedTuple):
    """State of `lawa`."""

    count: Array  # int32 scalar: updates made so far
    checkpoints: Points  # along the first axis the latest ones, a ring, stored as `average_dtype`; None: not averaged
    inner_state: State


@transformation
class lawa(GradientTransformation):
    """Does what `inner` does, and keeps the parameters after every so many updates; the mean of the latest ones is what
    the model is evaluated with.

        eval_params = mean of p_(m k), ..., p_((m - window + 1) k)          k = `every`, m: checkpoints made so far

    Until the first, the parameters are evaluated as they are. The updates are those of `inner`, to the bit.

    Args:
      inner: a transformation that ends in a descent step, or a foreign `(init, update)` pair; the whole chain.
      every: updates from one checkpoint to the next, at least 1; the paper's are an epoch apart.
      window: of how many the mean is, at least 1.
      mask: which leaves are averaged; the others are evaluated as they are. See `add_decayed_weights`.
      average_dtype: storage of the checkpoints; None means float32 or wider.

    State: 4 window bytes per float32 parameter, 4, and the inner one's. Reads: params; what the inner one reads.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: Kaddour, Stop wasting my time! Saving days of ImageNet and BERT training with latest weight averaging, 2022
      (arXiv:2209.14981).
    """

    inner: GradientTransformation = part(convert=as_transformation)
    every: int = whole(within="[1, inf)")
    window: int = whole(default=6, within="[1, inf)")
    mask: Any = static(default=None, convert=as_mask, kw_only=True)
    average_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        def ring(p, like):
            axes = [(), *((i,) for i in range(p.ndim))]
            return zeros_of_axes(p, axes, shape=(self.window, *p.shape), dtype=like.dtype)

        averaged = plain(kept(params, chosen(self.mask, params, self.name)))  # a container may know its shapes
        stored = jax.eval_shape(lambda p: leafwise.zeros(p, self.average_dtype), averaged)
        return LawaState(start(), jax.tree.map(ring, averaged, stored), self.inner.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        checkpoints = self._with(self.inner.eval_params(state.inner_state, params), state)
        with time(state.count):
            outgoing, inner = self.inner.bare_update(updates, state.inner_state, params, **extra)
        return outgoing, LawaState(tick(state.count), checkpoints, inner)

    def eval_params(self, state, params):
        evaluated = self.inner.eval_params(state.inner_state, params)
        wide = state._replace(checkpoints=leafwise.widen(state.checkpoints))
        checkpoints = self._with(leafwise.widen(leafwise.floats(evaluated)), wide)
        made = jnp.minimum(state.count // self.every, self.window)

        def leaf(p, ring):
            mean = jnp.sum(ring, axis=0) / jnp.maximum(made, 1)  # those that were not made are 0
            return jnp.where(made > 0, mean, p)

        return leafwise.evaluated(leaf, evaluated, checkpoints)

    def _with(self, params: Params, state: LawaState) -> Params:
        """The checkpoints with the parameters after the last update among them, where they are one."""
        is_one = (state.count > 0) & (state.count % self.every == 0)
        place = (state.count // self.every - 1) % self.window

        def leaf(ring, p):
            before = lax.dynamic_index_in_dim(ring, place, keepdims=False)
            return lax.dynamic_update_index_in_dim(ring, jnp.where(is_one, p.astype(ring.dtype), before), place, 0)

        return leafwise.map(leaf, state.checkpoints, params)

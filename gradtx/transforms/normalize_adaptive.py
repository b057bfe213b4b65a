"""The steepest step within a ball that is as wide as the parameters are large, entry by entry: ASAM's uphill."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.geometry import ratio
from gradtx.paths import plain
from gradtx.value import number, static


@transformation
class normalize_adaptive(GradientTransformation):
    """Scales the updates by the squares of their parameters, and all together to one length in units of these.

        u = T^2 g / (|T g| + eps),      T = |p| + eta           |T g| over all leaves; u = 0 where the whole is 0

    So |u / T| = 1: it is `normalize` of parameters that are measured in units of themselves, and does not change when
    a layer's weights are scaled up and the next one's down. With `sam`, it is ASAM:

        sam(sgd(0.1), chain(normalize_adaptive(), sgd(0.5)))

    Args:
      eta: in units of the parameters, not negative; lets those that are 0 be seen.
      eps: in units of gradient times parameter. Not negative.
      mask: of which leaves T is so; of the others it is 1. See `add_decayed_weights`.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params; every leaf once more, for the norm. NaN as in `clip_by_global_norm`.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: Kwon, Kim, Park, Choi, ASAM, ICML 2021, Algorithm 1 (arXiv:2102.11600). Its code has T of weights alone,
      which is `mask`; davda54's has eta = 0 and eps = 1e-12.
    """

    eta: Hyperparameter = number(default=0.01, within="[0, inf)")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        eta, eps = at(state.count, self.eta, self.eps)
        adapts = chosen(self.mask, params, self.name)
        stretched = lambda g, p, is_adapted: g * (jnp.abs(p) + eta) if is_adapted else g
        squares = leafwise.squares(leafwise.map(stretched, updates, params, adapts), axis=self.axis)
        factor = ratio(1.0, leafwise.joint_norm(squares, skip_nan=True) + eps)

        def leaf(g, p, is_adapted, square):
            scale = jnp.where(jnp.isnan(square), 0, factor).astype(square.dtype)
            return stretched(stretched(g, p, is_adapted), p, is_adapted) * scale

        squares = jax.tree.unflatten(jax.tree.structure(plain(updates)), squares)
        return leafwise.map(leaf, updates, params, adapts, squares), ClockState(tick(state.count))

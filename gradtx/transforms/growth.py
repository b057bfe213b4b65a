"""Bounding how fast updates grow from one to the next."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.collectives import Axis, as_axis, total
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, length, shrinkage
from gradtx.reductions import Asking, summed
from gradtx.value import number, state, static

EPS = 1e-8  # added to the norm before, in units of the updates


@state
class LimitNormGrowthState(NamedTuple):
    """State of `limit_norm_growth`."""

    count: Array  # int32 scalar: updates made so far
    norm: Params  # of each leaf the norm of its last updates as they left, float32 or wider; 0 before the first


@transformation
class limit_norm_growth(GradientTransformation):
    """Scales each leaf of the updates down where it has grown too much since the update before.

        u = g min(1, growth (|u before| + eps) / |g|)         the L2 norm of a whole leaf

    Args:
      growth: the largest |u| / |u before|; at least 1, infinity limits nothing. 1.01 lets a norm double in 70 updates.
      eps: in units of the updates. Not negative.
      axis: as in `clip_by_global_norm`.

    State: 4 bytes per leaf. Reads: updates only; every leaf once more, for the norm.
    After updates of 0 nothing is limited, nor after NaN.
    Source: Chen et al., Fira, NeurIPS 2025, equation 9 (arXiv:2410.01623), without the eps of the authors' code, which
      limits what follows a zero to 1e-8, for good.
    """

    growth: Hyperparameter = number(default=1.01, within="[1, inf]")
    eps: Hyperparameter = number(default=EPS, within="[0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return LimitNormGrowthState(start(), leafwise.zero_of_each(params, axis=self.axis))

    def update(self, updates, state, params=None, **extra):
        growth, eps = at(state.count, self.growth, self.eps)

        def leaf(g, before):
            return (yield from limited(g, before, growth, eps, tuple(range(g.ndim)), self.axis))

        updates, norm = leafwise.unzip_map(leaf, updates, state.norm, outputs=2)
        return updates, LimitNormGrowthState(tick(state.count), norm)


def limited(
    u: Array, before: Array, growth: Any, eps: Any, over: tuple[int, ...], axis: Axis = None
) -> Asking[tuple[Array, Array]]:
    """Within a formula, `yield from`: u with norms over some axes that have grown no more, and those norms."""
    (square,) = yield from summed((abs_sq(u), over))
    norm = length(total(square, axis))
    factor = jnp.where(before > 0, shrinkage(norm, growth * (before + eps)), 1)
    return u * jnp.expand_dims(factor, over), norm * factor

"""DoWG (Khaled, Mishchenko, Jin, 2023): DoG whose gradients are weighted by the distance at which they were met."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.combine.chain import chain
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import length
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, state


@state
class DoWGState(NamedTuple):
    """State of `scale_by_dowg`."""

    init_params: Params  # the parameters before the first update, as they were stored
    weighted_sq_norm_grads: Array  # v, scalar, float32 or wider
    estim_sq_dist: Array  # r^2, scalar, float32 or wider


@transformation
class scale_by_dowg(GradientTransformation):
    """Multiplies the updates by a squared distance, over the root of the sum of squares weighted with it.

        r2 = max(r2, |p - p0|^2),        v = v + r2 |g|^2             norms over all leaves
        u = g r2 / (sqrt(v) + eps)            0 where v and eps are 0

    Args:
      init_estim_sq_dist: r2 at the start, in squared units of the parameters, positive; None: eps. A schedule is read
        at 0.
      eps: beside the root, in units of the parameters times those of the gradient. Not negative.

    State: 4 bytes per float32 parameter and 8. Reads: params; gradients and parameters once more, for the norms.
    Source: Khaled, Mishchenko, Jin, DoWG unleashed: an efficient universal parameter-free gradient descent method,
      NeurIPS 2023, Algorithm 1 (arXiv:2305.16284), on the whole space.
    Differs from Optax: r2 and v are float32 or wider whatever the parameters are, and the first parameters a copy. A
      leaf whose norm is NaN counts in neither.
    """

    init_estim_sq_dist: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True)
    eps: Hyperparameter = number(default=1e-4, within="[0, inf)")

    def init(self, params):
        (r2,) = at(start(), self.eps if self.init_estim_sq_dist is None else self.init_estim_sq_dist)
        return DoWGState(geometry.copied(params), geometry.scalar(params, 0), geometry.scalar(params, r2))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (eps,) = at(now(), self.eps)
        travelled = geometry.distance_squared(updates, params, state.init_params)
        r2 = jnp.maximum(state.estim_sq_dist, travelled)
        weighted = state.weighted_sq_norm_grads + r2 * geometry.total(leafwise.squares(updates))
        factor = geometry.ratio(r2, length(weighted) + eps)
        record(extra, learning_rate=lambda: factor)
        updates = leafwise.map(lambda g: g * factor, updates)
        return updates, DoWGState(state.init_params, weighted, r2)


def dowg(
    learning_rate: Hyperparameter = 1.0,
    init_estim_sq_dist: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-4,
    weight_decay: Hyperparameter | None = None,
    mask: Any = None,
) -> GradientTransformation:
    """Gradient descent without a rate to tune, with more weight on late gradients. Other arguments: `scale_by_dowg`.

        p <- p - learning_rate g r2 / (sqrt(v) + eps)

    Args:
      learning_rate: a factor on DoWG's own; 1, or less where it diverges.
      weight_decay: added to the gradient, weight_decay p, before the norms; None for none.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask)]
    return chain(*decay, scale_by_dowg(init_estim_sq_dist, eps), scale_by_learning_rate(learning_rate))

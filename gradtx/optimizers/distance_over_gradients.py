"""Layer-wise DoG (Ivgi, Hinder, Carmon, 2023): each leaf's rate is its distance travelled over its gradients' size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import length, root, squares_summed
from gradtx.paths import plain
from gradtx.value import number, state, storage_dtype


@state
class ScaleByDistanceOverGradientsState(NamedTuple):
    """State of `scale_by_distance_over_gradients`."""

    max_dist: Params  # r, a scalar per leaf, float32 or wider
    grad_sum_of_squares: Params  # G, a scalar per leaf, float32 or wider
    init_params: Params  # the parameters before the first update, stored as `param_dtype`


@transformation
class scale_by_distance_over_gradients(GradientTransformation):
    """Multiplies each leaf of the updates by its largest distance from the start, over the root of its sum of squares.

        r = max(r, |p - p0|),        G = G + |g|^2             of a whole leaf; at the start r = reps_rel (1 + |p0|)
        u = global_scale g r / sqrt(G + eps)

    The updates keep the gradient's sign: end the chain with `scale_by_learning_rate(1.0)`. The paper averages the
    parameters over the run, and evaluates at the average. One rate for all leaves: `contrib.dog`.

    Args:
      reps_rel: the first distance as a fraction of 1 + |p0|; positive. 1e-4 with batch normalization. A schedule is
        read at 0.
      eps: inside the root, in squared units of the gradient. Not negative.
      param_dtype: storage of p0; None means float32 or wider.
      global_scale: a factor on the updates; any finite number.

    State: 4 bytes per float32 parameter, 8 per leaf. Reads: params; both trees once more, for the norms.
    Source: Ivgi, Hinder, Carmon, DoG is SGD's best friend, ICML 2023 (arXiv:2302.12022), L-DoG of section 3.3.
    Differs from Optax: G is a scalar, not an array of one entry, so scalar parameters keep their shape; p0 is a copy,
      and as wide as the parameters where they are wider than float32. A norm that is NaN does not move r and G.
    """

    reps_rel: Hyperparameter = number(default=1e-6, within="(0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    param_dtype: DTypeLike | None = storage_dtype(default=None)
    global_scale: Hyperparameter = number(default=1.0)

    def init(self, params):
        (fraction,) = at(start(), self.reps_rel)
        stored = lambda p: leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), self.param_dtype).dtype
        p0 = geometry.copied(params)
        return ScaleByDistanceOverGradientsState(
            max_dist=leafwise.map(lambda p: geometry.scalar(p, fraction * (1 + leafwise.norm(p))), plain(p0)),
            grad_sum_of_squares=leafwise.map(lambda p: geometry.scalar(p, 0), plain(p0)),
            init_params=leafwise.map(lambda p: p.astype(stored(p)), p0),
        )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        eps, scale = at(now(), self.eps, self.global_scale)

        def leaf(g, r, total, p0, p):
            squares = yield from squares_summed((g, p - p0))
            square, distance = (jnp.where(jnp.isnan(x), 0, x) for x in squares)
            r, total = jnp.maximum(r, length(distance)), total + square
            return g * (scale * r / root(total + eps)), r, total, p0

        slots = state.max_dist, state.grad_sum_of_squares, state.init_params
        updates, r, total, p0 = leafwise.unzip_map(leaf, updates, *slots, params, outputs=4)
        return updates, ScaleByDistanceOverGradientsState(r, total, p0)

"""Forgetting size: signs, centred gradients, and steps in proportion to the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.core import EmptyState, GradientTransformation, require_params, transformation
from gradtx.moments import by_parts, rms, root, shrinkage, squares_summed, whole_size
from gradtx.paths import plain
from gradtx.reductions import Asking, summed
from gradtx.value import number, static

ScaleByTrustRatioState = NormalizeState = EmptyState  # Optax's names


@transformation
class scale_by_sign(GradientTransformation):
    """Replaces each entry of the updates by its sign: -1, 0 or 1; of complex entries, both parts' signs.

    State: none. Reads: updates only.
    Source: Bernstein, Wang, Azizzadenesheli, Anandkumar, signSGD, ICML 2018 (arXiv:1802.04434).
    """

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        return leafwise.map(lambda g: by_parts(jnp.sign, g), updates), state


@transformation
class centralize(GradientTransformation):
    """Subtracts from each leaf of two or more dimensions its mean over all dimensions but the first.

        u = g - mean(g, dimensions 1, 2, ...)

    State: none. Reads: updates only.
    Source: Yong, Huang, Hua, Zhang, Gradient Centralization, ECCV 2020 (arXiv:2004.01461), for whom the first dimension
      is the output; the axes are Optax's, also for JAX's kernels, whose output dimension comes last.
    """

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        def leaf(g):
            if g.ndim < 2 or not g.size:
                return g
            others = tuple(range(1, g.ndim))
            (total,) = yield from summed((g, others))
            return g - jnp.expand_dims(total * (g.shape[0] / g.size), others)

        return leafwise.map(leaf, updates), state


@transformation
class scale_by_trust_ratio(GradientTransformation):
    """Scales each leaf of the updates to a length in proportion to its parameter's.

        u = g  trust_coefficient max(|p|, min_norm) / (max(|g|, min_norm) + eps)        u = g where |p| or |g| is 0

    |.| is the L2 norm of a whole leaf, in which NaN counts as 0. Where |g| is infinite, u is 0.

    Args:
      min_norm: norms below it count as it. Not negative.
      trust_coefficient: the step's length as a fraction of the parameter's. Positive.
      eps: added to the update's norm. Not negative.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params; both trees once more, for the norms.
    Source: You, Gitman, Ginsburg, Large batch training of convolutional networks, 2017 (arXiv:1708.03888).
    """

    min_norm: Hyperparameter = number(default=0.0, within="[0, inf)")
    trust_coefficient: Hyperparameter = number(default=1.0, within="(0, inf)")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        min_norm, coefficient, eps = at(state.count, self.min_norm, self.trust_coefficient, self.eps)

        def leaf(g, p):
            return g * (yield from trust_ratio(g, p, coefficient, min_norm, eps, self.axis))

        return leafwise.map(leaf, updates, params), ClockState(tick(state.count))


def trust_ratio(
    g: Array, p: Array, coefficient: Any = 1.0, min_norm: Any = 0.0, eps: Any = 0.0, axis: Axis = None
) -> Asking[Array]:
    """Within a formula, `yield from`: coefficient |p| / |g|, as in `scale_by_trust_ratio`."""
    g_square, p_square = yield from squares_summed((g, p), True, axis)
    zero = jnp.minimum(g_square, p_square) == 0
    g_norm, p_norm = root(g_square), root(p_square)
    if not (isinstance(min_norm, float) and min_norm == 0):
        zero &= min_norm == 0
        g_norm, p_norm = jnp.maximum(g_norm, min_norm), jnp.maximum(p_norm, min_norm)
    infinite = jnp.isinf(g_norm)
    ratio = coefficient * p_norm / jnp.where(zero | infinite, 1.0, g_norm + eps)
    return jnp.where(zero, 1.0, jnp.where(infinite, 0.0, ratio))


@transformation
class normalize_by_update_norm(GradientTransformation):
    """Scales all updates together to one length.

        u = g scale_factor / (|g| + eps)           |g| over all leaves; u = 0 where |g| + eps is 0

    Args:
      scale_factor: the length, in units of the updates; any finite number, negative to turn the gradient around.
      eps: in units of the updates. Not negative. Updates well below it are not normalized.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: updates only; every leaf once more, for the norm. NaN as in `clip_by_global_norm`.
    """

    scale_factor: Hyperparameter = number(default=1.0)
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        length, eps = at(state.count, self.scale_factor, self.eps)
        squares = leafwise.squares(updates, axis=self.axis)
        size = leafwise.joint_norm(squares, skip_nan=True) + eps
        factor = jnp.where(size == 0, 0, length / jnp.where(size == 0, 1, size))
        factor, squares = jax.lax.optimization_barrier((factor, squares))  # or XLA computes them anew for every leaf
        leaf = lambda g, square: g * jnp.where(jnp.isnan(square), 0, factor).astype(square.dtype)
        squares = jax.tree.unflatten(jax.tree.structure(plain(updates)), squares)
        return leafwise.map(leaf, updates, squares), ClockState(tick(state.count))


def normalize(*, axis: Axis = None) -> GradientTransformation:
    """Divides all updates by their joint L2 norm; 0 where it is 0. `normalize_by_update_norm` with eps = 0."""
    return normalize_by_update_norm(eps=0.0, axis=axis)


@transformation
class scale_by_param_block_norm(GradientTransformation):
    """Multiplies each leaf of the updates by its parameter's norm.

        u = g max(|p|, min_scale)           the L2 norm of a whole leaf

    Args:
      min_scale: positive, in units of the parameters; lets a parameter that starts at zero move.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params; they once more, for the norm.
    """

    min_scale: Hyperparameter = number(default=1e-3, within="(0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (min_scale,) = at(state.count, self.min_scale)

        def leaf(g, p):
            (square,) = yield from squares_summed((p,), axis=self.axis)
            return g * jnp.maximum(root(square), min_scale)

        return leafwise.map(leaf, updates, require_params(params, self)), ClockState(tick(state.count))


@transformation
class scale_by_param_block_rms(GradientTransformation):
    """Multiplies each leaf of the updates by its parameter's root mean square.

        u = g max(rms(p), min_scale),       rms per leaf
        u = g max(rms(p), min_scale) / max(1, rms(g) / clipping_threshold)     with a threshold

    With a threshold, NaN counts as 0 in both.

    Args:
      min_scale: positive, in units of the parameters; lets a parameter that starts at zero move.
      clipping_threshold: bound on the rms of each leaf of g, as by `clip_by_block_rms` before it, but in one pass over
        memory for both. At least 0; None or infinity for none.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params.
    Source: Shazeer, Stern, Adafactor, ICML 2018, sections 6 and 8 (arXiv:1804.04235).
    """

    min_scale: Hyperparameter = number(default=1e-3, within="(0, inf)")
    clipping_threshold: Hyperparameter | None = number(default=None, within="[0, inf]", optional=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (min_scale,) = at(state.count, self.min_scale)
        (threshold,) = (None,) if self.clipping_threshold is None else at(state.count, self.clipping_threshold)

        def leaf(g, p):
            if threshold is None:
                return g * jnp.maximum((yield from rms(p, self.axis)), min_scale)
            squares = yield from squares_summed((g, p), True, self.axis)
            g_rms, p_rms = (root(x * (1 / max(whole_size(p, self.axis), 1))) for x in squares)
            return g * (jnp.maximum(p_rms, min_scale) * shrinkage(g_rms, threshold))

        return leafwise.map(leaf, updates, require_params(params, self)), ClockState(tick(state.count))

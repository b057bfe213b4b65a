"""Bounds that come from the gradients seen so far: entries, leaves and norms that are far above their usual size."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.collectives import Axis, as_axis, parts_along
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, length, root, shrinkage, squares_summed
from gradtx.types import Squares
from gradtx.value import number, state, static


@state
class ClipSpikesState(NamedTuple):
    """State of `clip_spikes`."""

    count: Array  # int32 scalar: updates made so far
    nu: Squares  # running mean of |u|^2, real, float32 or wider


@transformation
class clip_spikes(GradientTransformation):
    """Clips each entry of the updates to a multiple of its own root mean square so far.

        u = g min(1, sqrt(threshold nu) / |g|),      nu = decay nu + (1 - decay) |u|^2         from zero

    nu keeps its bias toward zero. Where it is 0, an entry that never had a gradient, nothing is clipped.

    Args:
      threshold: the largest |u|^2 / nu; positive, infinity clips nothing. 5000 in the paper. A schedule may let it be
        infinite at the start, where nu says little.
      decay: of nu, in [0, 1).

    State: 4 bytes per float32 parameter. Reads: updates only. Before Adam the same nu is kept twice: see
      `scale_by_spam`.
    Source: Huang et al., SPAM: Spike-aware Adam with momentum reset for stable LLM training, ICLR 2025
      (arXiv:2501.06842). There an entry whose nu is 0 is clipped to 0: it never moves again.
    """

    threshold: Hyperparameter = number(default=5000.0, within="(0, inf]")
    decay: Hyperparameter = number(default=0.999, within="[0, 1)")

    def init(self, params):
        return ClipSpikesState(start(), leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        threshold, decay = at(state.count, self.threshold, self.decay)

        def leaf(g, nu):
            u = without_spikes(g, nu, threshold)
            return u, ema(nu, abs_sq(u), decay)

        clipped, nu = leafwise.unzip_map(leaf, updates, state.nu, outputs=2)
        is_smaller = lambda g, u: jnp.abs(u) < jnp.abs(g)
        record(extra, clipped=lambda: leafwise.anywhere(is_smaller, updates, clipped))
        return clipped, ClipSpikesState(tick(state.count), nu)


def without_spikes(g: Array, nu: Array, threshold: Array) -> Array:
    """g, each entry at most sqrt(threshold nu) long; as it is where nu is 0."""
    is_bounded = jnp.isfinite(threshold)  # infinity times 0 would be the slope
    finite = jnp.where(is_bounded, threshold, 1)
    bound = jnp.where((nu > 0) & is_bounded, jnp.sqrt(finite) * root(nu), jnp.inf)
    return g * shrinkage(jnp.abs(g), bound) if jnp.iscomplexobj(g) else jnp.clip(g, -bound, bound)


@state
class ClipByRunningMaxState(NamedTuple):
    """State of `clip_by_running_max`."""

    count: Array  # int32 scalar: updates made so far
    largest: Params  # running mean of max |g|, one number per leaf, real, float32 or wider


@transformation
class clip_by_running_max(GradientTransformation):
    """Scales those entries of a leaf down that are above the mean, over time, of its largest entry.

        M = decay M + (1 - decay) max |g|           from zero;  the largest entry of the leaf
        b = M / (1 - decay^t)
        u = g b / max |g|  where |g| > b,     u = g elsewhere

    The entries above b keep their order: the largest becomes b, the others less.

    Args:
      decay: of M, in [0, 1).
      axis: as in `clip_by_global_norm`.

    State: 4 bytes and 4 per leaf. Reads: updates only; every leaf once more, for its largest entry.
    Source: Huang et al., Stable-SPAM: how to train in 4-bit more stably than 16-bit Adam, 2025, AdaClip
      (arXiv:2502.17055).
    """

    decay: Hyperparameter = number(default=0.999, within="[0, 1)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return ClipByRunningMaxState(start(), leafwise.zero_of_each(params, axis=self.axis))

    def update(self, updates, state, params=None, **extra):
        (decay,) = at(state.count, self.decay)
        count = tick(state.count)
        unbias = 1 / ema_mass(decay, count)

        def leaf(g, largest):
            now = jnp.max(jnp.abs(g), initial=0)
            along = () if self.axis is None else parts_along(now, self.axis)
            now = jax.lax.pmax(now, along) if along else now
            largest = ema(largest, now, decay)
            bound = largest * unbias
            return jnp.where(jnp.abs(g) > bound, g * shrinkage(now, bound), g), largest

        clipped, largest = leafwise.unzip_map(leaf, updates, state.largest, outputs=2)
        is_smaller = lambda g, u: jnp.abs(u) < jnp.abs(g)
        record(extra, clipped=lambda: leafwise.anywhere(is_smaller, updates, clipped, axis=self.axis))
        return clipped, ClipByRunningMaxState(count, largest)


@state
class NormalizeByRunningNormState(NamedTuple):
    """State of `normalize_by_running_norm`."""

    count: Array  # int32 scalar: updates made so far
    norm: Params  # running mean of |g|, one number per leaf, real, float32 or wider
    square: Params  # running mean of |g|^2, one number per leaf, real, float32 or wider


@transformation
class normalize_by_running_norm(GradientTransformation):
    """Gives each leaf of the updates the length that its norm has had on average, over its root mean square.

        a = b1 a + (1 - b1) |g|,       s = b2 s + (1 - b2) |g|^2            from zero;  |g| the leaf's L2 norm
        u = g / |g|  (a / (1 - b1^t)) / (sqrt(s / (1 - b2^t)) + eps)        u = 0 where |g| is 0

    So the length of u is about 1 whatever that of g, and one long gradient makes no long update.

    Args:
      b1, b2: decays of a and s, in [0, 1).
      eps: in units of a leaf's norm. Not negative.
      axis: as in `clip_by_global_norm`.

    State: 4 bytes and 8 per leaf. Reads: updates only; every leaf once more, for its norm.
    Source: Huang et al., Stable-SPAM: how to train in 4-bit more stably than 16-bit Adam, 2025, AdaGN
      (arXiv:2502.17055).
    """

    b1: Hyperparameter = number(default=0.7, within="[0, 1)")
    b2: Hyperparameter = number(default=0.9, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        norm, square = (leafwise.zero_of_each(params, axis=self.axis) for _ in range(2))
        return NormalizeByRunningNormState(start(), norm, square)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps = at(state.count, self.b1, self.b2, self.eps)
        count = tick(state.count)
        unbias1, unbias2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, norm, square):
            (now,) = yield from squares_summed((g,), axis=self.axis)
            size = length(now)
            norm, square = ema(norm, size, b1), ema(square, now, b2)
            wanted = norm * unbias1 / (root(square * unbias2) + eps)
            return g * jnp.where(now == 0, 0, wanted / jnp.where(now == 0, 1, size)), norm, square

        updates, norm, square = leafwise.unzip_map(leaf, updates, state.norm, state.square, outputs=3)
        return updates, NormalizeByRunningNormState(count, norm, square)

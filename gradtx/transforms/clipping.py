"""Bounding the updates: by entry, by leaf, all together; and replacing NaN."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, Updates, transformation
from gradtx.moments import rms, shrinkage
from gradtx.paths import plain
from gradtx.value import number, state


@transformation
class clip(GradientTransformation):
    """Clips each entry of the updates to [-max_delta, max_delta].

        u = min(max(g, -max_delta), max_delta)      real and imaginary parts apart

    Args:
      max_delta: in units of the updates, at least 0; infinity clips nothing.

    State: the time. Reads: updates only.
    """

    max_delta: Hyperparameter = number(within="[0, inf]")

    def update(self, updates, state, params=None, **extra):
        (bound,) = at(state.count, self.max_delta)

        def leaf(g):
            if jnp.iscomplexobj(g):
                return jnp.clip(g.real, -bound, bound) + 1j * jnp.clip(g.imag, -bound, bound)
            return jnp.clip(g, -bound, bound)

        return _recorded(extra, updates, leafwise.map(leaf, updates)), ClockState(tick(state.count))


@transformation
class clip_by_global_norm(GradientTransformation):
    """Scales all updates down together where their joint L2 norm exceeds a bound.

        u = g min(1, max_norm / |g|),    |g| over all leaves, accumulated in float32 or wider

    Args:
      max_norm: in units of the updates, at least 0; infinity clips nothing.

    State: the time. Reads: updates only; every leaf once more, for the norm.
    Source: Pascanu, Mikolov, Bengio, On the difficulty of training recurrent neural networks, ICML 2013, Algorithm 1.
    A norm that is infinite (in float32, from 2e19 on) makes finite updates 0. A leaf that holds NaN has no norm: the
    others are bounded as without it, and what stands beside the NaN becomes 0, whatever the bound.
    """

    max_norm: Hyperparameter = number(within="[0, inf]")

    def update(self, updates, state, params=None, **extra):
        (max_norm,) = at(state.count, self.max_norm)
        squares = leafwise.squares(updates)
        factor = shrinkage(leafwise.joint_norm(squares, skip_nan=True), max_norm)
        record(extra, clipped=lambda: factor < 1)
        factor, squares = jax.lax.optimization_barrier((factor, squares))  # or XLA computes them anew for every leaf
        leaf = lambda g, square: g * jnp.where(jnp.isnan(square), 0, factor)
        squares = jax.tree.unflatten(jax.tree.structure(plain(updates)), squares)
        return leafwise.map(leaf, updates, squares), ClockState(tick(state.count))


@transformation
class clip_by_block_rms(GradientTransformation):
    """Scales each leaf of the updates down where its root mean square exceeds a bound.

        u = g / max(1, rms(g) / threshold),     rms per leaf

    Args:
      threshold: in units of the updates, at least 0; infinity clips nothing.

    State: the time. Reads: updates only.
    Source: Shazeer, Stern, Adafactor, ICML 2018, section 6 (arXiv:1804.04235). NaN as in `clip_by_global_norm`.
    """

    threshold: Hyperparameter = number(within="[0, inf]")

    def update(self, updates, state, params=None, **extra):
        (threshold,) = at(state.count, self.threshold)

        def leaf(g):
            return g * shrinkage(rms(g), threshold)

        return _recorded(extra, updates, leafwise.map(leaf, updates)), ClockState(tick(state.count))


def _recorded(extra: dict[str, Any], updates: Updates, clipped: Updates) -> Updates:
    record(extra, clipped=lambda: leafwise.anywhere(lambda g, u: jnp.abs(u) < jnp.abs(g), updates, clipped))
    return clipped


@state
class ZeroNansState(NamedTuple):
    """State of `zero_nans`."""

    found_nan: Params  # bool scalar per leaf: whether the last update held a NaN


@transformation
class zero_nans(GradientTransformation):
    """Replaces NaN by 0 in the updates, and remembers in which leaves there was one. Infinities stay.

    State: 1 byte per leaf. Reads: updates only.
    """

    def init(self, params):
        return ZeroNansState(leafwise.map(lambda p: jnp.full_like(p, False, dtype=bool, shape=()), plain(params)))

    def update(self, updates, state, params=None, **extra):
        def leaf(g, _):
            is_nan = jnp.isnan(g)
            return jnp.where(is_nan, jnp.zeros_like(g), g), jnp.any(is_nan)

        updates, found_nan = leafwise.unzip_map(leaf, updates, state.found_nan, outputs=2)
        return updates, ZeroNansState(found_nan)

"""Bounding the updates: by entry, by leaf, all together; and replacing NaN."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis, total
from gradtx.combine.record import record
from gradtx.core import EmptyState, GradientTransformation, Params, Updates, require_params, transformation
from gradtx.moments import abs_sq, by_parts, length, rms, shrinkage
from gradtx.paths import plain
from gradtx.reductions import occurs
from gradtx.value import number, state, static

ClipState = ClipByGlobalNormState = AdaptiveGradClipState = EmptyState  # Optax's names


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

        leaf = lambda g: by_parts(lambda x: jnp.clip(x, -bound, bound), g)
        return _recorded(extra, updates, leafwise.map(leaf, updates)), ClockState(tick(state.count))


@transformation
class clip_by_global_norm(GradientTransformation):
    """Scales all updates down together where their joint L2 norm exceeds a bound.

        u = g min(1, max_norm / |g|),    |g| over all leaves, accumulated in float32 or wider

    Args:
      max_norm: in units of the updates, at least 0; infinity clips nothing.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which devices hold parts of the leaves:
        norms are then of the whole leaves, and what does not vary along it counts once. With `check_vma=False`, and
        under `jax.pmap`, types do not tell what varies: there every leaf counts as a part. None: a device's own.

    State: the time. Reads: updates only; every leaf once more, for the norm.
    Source: Pascanu, Mikolov, Bengio, On the difficulty of training recurrent neural networks, ICML 2013, Algorithm 1.
    A norm that is infinite (in float32, from 2e19 on) makes finite updates 0. A leaf that holds NaN has no norm: the
    others are bounded as without it, and what stands beside the NaN becomes 0, whatever the bound.
    """

    max_norm: Hyperparameter = number(within="[0, inf]")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (max_norm,) = at(state.count, self.max_norm)
        squares = leafwise.squares(updates, axis=self.axis)
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
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: updates only.
    Source: Shazeer, Stern, Adafactor, ICML 2018, section 6 (arXiv:1804.04235). NaN as in `clip_by_global_norm`.
    """

    threshold: Hyperparameter = number(within="[0, inf]")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (threshold,) = at(state.count, self.threshold)

        def leaf(g):
            return g * shrinkage((yield from rms(g, self.axis)), threshold)

        return _recorded(extra, updates, leafwise.map(leaf, updates), self.axis), ClockState(tick(state.count))


def _as_axes(owner: str, name: str, axis: Any) -> int | tuple[int, ...] | None:
    axes = () if axis is None else axis if isinstance(axis, (tuple, list)) else (axis,)
    if any(isinstance(i, bool) or not isinstance(i, int) for i in axes):
        raise TypeError(f"`{owner}`: {name} must be an axis, a tuple of them or None, got {axis!r}.")
    return tuple(axis) if isinstance(axis, list) else axis


@transformation
class adaptive_grad_clip(GradientTransformation):
    """Scales each unit of the updates down where it is longer than a fraction of the parameters of that unit.

        u = g min(1, clipping max(|p|, eps) / |g|)         L2 norms over a unit's entries

    A unit is what feeds one output: of a matrix a column, of a convolution's kernel all of one output channel, of a
    vector or a scalar the whole. Output channels come last.

    Args:
      clipping: the largest |g| / |p|. Not negative; the paper has 0.01 for large batches.
      eps: norms of parameters below it count as it, so that parameters that start at zero move. Not negative.
      axis: the axes over which norms are taken, of every leaf. None: by rank, see `unitwise_norm`.
      mesh_axis: the manual axis, or several, along which devices hold parts of each unit: leaves are split along
        dimensions over which norms are taken. Else as `axis` of `clip_by_global_norm`. None: units are a device's own,
        also where leaves are split along their other dimensions.

    State: the time. Reads: params; both trees once more, for the norms.
    Raises:
      ValueError: no params; a leaf with more than five dimensions, and no axis.
    Source: Brock, De, Smith, Simonyan, High-performance large-scale image recognition without normalization, ICML 2021,
      equation 3 (arXiv:2102.06171), who leave the last layer out: see `masked`. Of a unit that holds NaN, the other
      entries become 0.
    """

    clipping: Hyperparameter = number(within="[0, inf)")
    eps: Hyperparameter = number(default=1e-3, within="[0, inf)")
    axis: int | tuple[int, ...] | None = static(default=None, convert=_as_axes)
    mesh_axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        clipping, eps = at(state.count, self.clipping, self.eps)

        def leaf(g, p):
            g_norm, p_norm = (_norm_of_units(x, self.axis, self.mesh_axis) for x in (g, p))
            return g * shrinkage(g_norm, clipping * jnp.maximum(p_norm, eps)).astype(g_norm.dtype)

        clipped = leafwise.map(leaf, updates, require_params(params, self))
        return _recorded(extra, updates, clipped, self.mesh_axis), ClockState(tick(state.count))


def unitwise_norm(x: ArrayLike, axis: int | tuple[int, ...] | None = None) -> Array:
    """The L2 norm of each unit, at every entry of it: an array of x's shape, real, float32 or wider.

    Args:
      x: any array.
      axis: the axes over which norms are taken. None: of scalars and vectors, whatever dimensions of size 1 they have,
        all; of two or three dimensions the first; of four or five all but the last.

    Raises:
      ValueError: x has more than five dimensions, and there is no axis.
    """
    wide: Array = leafwise.widen(jnp.asarray(x))
    return jnp.broadcast_to(_norm_of_units(wide, axis), wide.shape)


def unitwise_clip(g_norm: ArrayLike, max_norm: ArrayLike, grad: ArrayLike, div_eps: ArrayLike = 1e-6) -> Array:
    """grad where g_norm < max_norm, else grad max_norm / max(g_norm, div_eps). All are of one shape.

    Args:
      g_norm, max_norm: the norm of each entry's unit, and its bound: see `unitwise_norm`.
      grad: the gradient.
      div_eps: positive, against division by 0.
    """
    shapes = [jnp.shape(x) for x in (g_norm, max_norm, grad)]
    if len(set(shapes)) > 1:
        raise ValueError(f"`unitwise_clip`: g_norm, max_norm and grad must be of one shape, got {shapes}.")
    g_norm, grad = jnp.asarray(g_norm), jnp.asarray(grad)
    return jnp.where(g_norm < max_norm, grad, grad * (max_norm / jnp.maximum(g_norm, div_eps)))


def _norm_of_units(x: Array, axis: int | tuple[int, ...] | None, mesh_axis: Axis = None) -> Array:
    """`unitwise_norm` with 1 in place of each dimension that was reduced."""
    if axis is None:
        if x.ndim > 5:
            raise ValueError(f"`unitwise_norm`: an array of shape {x.shape} has no units by rank: pass axis.")
        last = {2: 1, 3: 1}.get(x.ndim, x.ndim - 1)
        axis = tuple(range(x.ndim if sum(n != 1 for n in x.shape) <= 1 else last))
    return length(total(jnp.sum(abs_sq(x), axis=axis, keepdims=True), mesh_axis))


def _recorded(extra: dict[str, Any], updates: Updates, clipped: Updates, axis: Axis = None) -> Updates:
    is_smaller = lambda g, u: jnp.abs(u) < jnp.abs(g)
    record(extra, clipped=lambda: leafwise.anywhere(is_smaller, updates, clipped, axis=axis))
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
            return jnp.where(is_nan, jnp.zeros_like(g), g), (yield from occurs(is_nan))

        updates, found_nan = leafwise.unzip_map(leaf, updates, state.found_nan, outputs=2)
        return updates, ZeroNansState(found_nan)

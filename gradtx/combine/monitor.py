"""Looking at a transformation while it runs: rates, norms, ratios, and what was clipped or skipped."""

import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise, paths
from gradtx.clock import start, tick
from gradtx.collectives import Axis, anywhere, as_axis, names
from gradtx.combine.masking import masked
from gradtx.combine.measure import measured
from gradtx.combine.partition import partition
from gradtx.combine.record import Said, listening
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.moments import again, length, squares_summed
from gradtx.placement import differing_like
from gradtx.value import part, state, static


@state
class MonitoredState(NamedTuple):
    """State of `monitor`. `metrics` reads it."""

    count: Array  # int32 scalar: updates made so far
    learning_rate: Any  # float32 scalar: what was multiplied with last, all rates together; 0 if nothing was, or the
    # update was skipped. Where a `masked` stands inside: {leaf's path: that of the leaf}
    gradient_norm: Array  # float32 scalar: L2, over all leaves, of what came in last
    update_norm: Array  # float32 scalar: L2, over all leaves, of what went out last
    update_ratio: Params  # float32 scalar per leaf: |update| / |parameter|, L2; 0 for a parameter that is 0
    clipped: Array  # int32 scalar: updates so far in which a clip changed something
    skipped: Array  # int32 scalar: updates so far that were skipped
    inner: State  # the monitored transformation's own


@transformation
class monitor(GradientTransformation):
    """Does what `inner` does, and keeps in its state what one wants to see of it. `metrics(state)` reads that.

        tx = monitor(chain(clip_by_global_norm(1.0), adamw(schedule)))
        ...
        metrics(state)   # {"learning_rate": ..., "gradient_norm": ..., "update_ratio/dense/kernel": ..., ...}

    Nothing inside is built anew, and its state is the field `inner`: `tx.init(params)._replace(inner=running)`
    begins to look at a run in the middle. Whatever stands inside reports through combinators of any depth: rates from
    `scale_by_learning_rate`, which multiply, clips, skipped updates from `apply_if_finite`; a transformation of your
    own by `record`. What a foreign one traces in a branch or a loop is not heard.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair, of which norms and ratios are seen.
      axis: as in `clip_by_global_norm`: norms and ratios are of whole leaves.

    State: 28 bytes, 4 per leaf, and the inner one's. Reads: what the inner one reads; params for the ratios, which
      without them stay 0; gradients, updates and params once more, for their norms. With `adamw` on a CPU a step moves
      70 bytes per parameter instead of 40 (compiled program, float32).
    Optax's link of that name, which keeps functions of the updates that pass it, is made where a dict of them is given:
      `monitor({"norm": global_norm})` (`combine.measure.measured`).
    """

    inner: GradientTransformation = part(convert=as_transformation)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def __new__(cls, inner: Any = None, measures: Any = None, *, axis: Axis = None) -> Any:
        given = inner if measures is None else measures
        return measured(given) if isinstance(given, Mapping) else super().__new__(cls)

    def init(self, params):
        alike = lambda x, like: differing_like(x, like, but=names(self.axis))
        zero = lambda *like: alike(jnp.zeros((), jnp.float32), like or params)
        rates: Any = {name: zero() for name in paths.names(params)} if _has_groups(self.inner) else zero()
        ratios = jax.tree.map(zero, paths.plain(params))
        counts = alike((start(), start()), params)
        return MonitoredState(start(), rates, zero(), zero(), ratios, *counts, inner=self.inner.bare_init(params))

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner, params)

    def update(self, updates, state, params=None, **extra):
        with listening() as said:
            outgoing, inner = self.inner.bare_update(updates, state.inner, params, **extra)
        update_norm, update_ratio = _norm_and_ratios(outgoing, state.update_ratio, params, self.axis)
        like = updates if params is None else params
        happened = lambda count, name: jnp.where(anywhere(_happened(said, name), self.axis), tick(count), count)
        return outgoing, MonitoredState(
            count=tick(state.count),
            learning_rate=differing_like(_rates(said, state.learning_rate, like), like, but=names(self.axis)),
            gradient_norm=leafwise.norm(jax.tree.map(lambda g: again(g)[0], updates), axis=self.axis),
            update_norm=update_norm,
            update_ratio=update_ratio,
            clipped=happened(state.clipped, "clipped"),
            skipped=happened(state.skipped, "skipped"),
            inner=inner,
        )


def metrics(state: Any) -> dict[str, Array]:
    """What the `monitor` in a state has seen: scalars by name, ready for a log or a plot.

    Args:
      state: anything that holds a `MonitoredState`: a chain's state, a `TrainState`, an `nnx.Optimizer`'s; under `vmap`
        or `scan`, stacked.

    Returns:
      "learning_rate", "gradient_norm", "update_norm", "clipped_fraction" (of all updates so far), "skipped_steps" (so
      far), and for each parameter "update_ratio/" and its path. Where a `masked` stands inside, also for each parameter
      "learning_rate/" and its path; "learning_rate" is then the largest of them.

    Raises:
      ValueError: there is no `MonitoredState`, or more than one.
    """
    is_monitor = lambda x: isinstance(x, MonitoredState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_monitor) if is_monitor(x)]
    if len(found) != 1:
        hint = ": wrap the transformation, `monitor(tx)`" if not found else ": pass the state of one"
        raise ValueError(f"`metrics`: the state holds {len(found)} states of `monitor`, expected 1{hint}.")
    (seen,) = found
    ratios = dict(zip(paths.names(seen.update_ratio), jax.tree.leaves(seen.update_ratio), strict=True))
    rates = seen.learning_rate if isinstance(seen.learning_rate, dict) else {}
    largest = functools.reduce(jnp.maximum, rates.values()) if rates else seen.learning_rate
    with jax.numpy_dtype_promotion("standard"):
        clipped_fraction = seen.clipped / jnp.maximum(seen.count, 1)
    by_leaf = {"learning_rate": rates, "update_ratio": ratios}
    return {
        "learning_rate": largest,
        "gradient_norm": seen.gradient_norm,
        "update_norm": seen.update_norm,
        "clipped_fraction": clipped_fraction,
        "skipped_steps": seen.skipped,
    } | {f"{name}/{path}".rstrip("/"): x for name, xs in by_leaf.items() for path, x in xs.items()}  # one has no path


def _has_groups(inner: GradientTransformation) -> bool:
    is_group = lambda x: isinstance(x, (masked, partition))
    return any(map(is_group, jax.tree.leaves(inner, is_leaf=is_group)))


def _rates(said: list[Said], before: Any, params: Params) -> Any:
    """What was multiplied with, all in all; of each leaf, where there are groups."""
    rates = [x for x in said if x.name == "learning_rate"]
    product = lambda rates: math.prod(x.value for x in rates) if rates else jnp.zeros((), jnp.float32)
    if not isinstance(before, dict):
        return product(rates)
    of_leaf = lambda keys: product([x for x in rates if x.leaves is None or keys in x.leaves])
    named = zip(paths.names(params), paths.all_keys(params), strict=True)
    return before | {name: of_leaf(keys) for name, keys in named if name in before}


def _happened(said: list[Said], name: str) -> Array:
    return functools.reduce(jnp.logical_or, [x.value for x in said if x.name == name], jnp.array(False))


def _norm_and_ratios(updates: Any, ratios: Any, params: Any, axis: Axis) -> tuple[Array, Any]:
    if params is None:
        return leafwise.norm(updates, axis=axis), ratios

    def leaf(u, _, p):
        u_square, p_square = yield from squares_summed((u, p), axis=axis)
        return u_square, jnp.where(p_square == 0, 0, length(u_square / jnp.where(p_square == 0, 1, p_square)))

    squares, ratios = leafwise.unzip_map(leaf, updates, ratios, params, outputs=2)
    return length(sum(jax.tree.leaves(squares), start=jnp.zeros(()))), ratios

"""The variance of the gradient from example to example, and its average over time."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.aggregating.aggregator import process
from gradtx.aggregating.averages import axes_of_examples, get_batch_size_from_per_elt_updates
from gradtx.calls import public
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.stateless import identity
from gradtx.core import EmptyState, GradientTransformation, State, Updates, transformation
from gradtx.moments import abs_sq, ema, ema_mass
from gradtx.placement import differing_like
from gradtx.transforms.per_example import beside
from gradtx.value import number, state, static, whole


@state
class PerElementMeanAndSumSqDiffGradsState(NamedTuple):
    """State of `get_per_element_mean_and_sum_sq_diff_grads` over several micro-batches."""

    micro_step: Array  # int32 scalar: micro-batches since the last mean went out
    ready: Array  # bool scalar: whether one went out at the last call
    mean_grads: Updates  # mean of the gradients since, float32 or wider
    sum_sq_diff_grads: Updates  # sum of the squared distances from it, real


def _with_aux(self: GradientTransformation, updates: Updates, state: State, params: Any = None, **extra: Any) -> tuple:
    """((mean, {"sum_sq_diff_grads": ..., "sample_size": ...}), state)."""
    found, new_state = self.bare_update(leafwise.gradients(updates, params), leafwise.widen(state), params, **extra)
    return found, leafwise.cast_like(new_state, state)


@transformation
class get_per_element_mean_and_sum_sq_diff_grads(GradientTransformation):
    """The mean of the examples' gradients, and the sum of the squares of their distances from it.

        m = mean of g_i,     s = sum of |g_i - m|^2         over the examples of k micro-batches

    `update` returns `((m, {"sum_sq_diff_grads": s, "sample_size": n}), state)`, for
    `process(..., aggregator_has_aux=True)`; zeros before the k-th call.

    Args:
      per_elt_axis: the axis of the examples, or several.
      accumulation_steps: k, at least 1; the micro-batches are of one size. With 1 there is no state.

    State: 5 bytes, and 8 per float32 parameter. Reads: the gradients of examples.
    Source: for the sum over micro-batches, Chan, Golub, LeVeque, Updating formulae and a pairwise algorithm for
      computing sample variances, 1979.
    Differs from Optax: s is real of complex gradients; one infinite gradient does not stay.
    """

    per_elt_axis: Any = static(default=0, convert=axes_of_examples)
    accumulation_steps: int = whole(default=1, within="[1, inf)")

    @property
    def of_examples(self) -> bool:
        return True

    def init(self, params):
        if self.accumulation_steps == 1:
            return EmptyState()
        mean, square = leafwise.zeros(params), leafwise.zeros(params, real=True)
        state = PerElementMeanAndSumSqDiffGradsState(start(), jnp.array(False), mean, square)
        return differing_like(state, params)

    def bare_update(self, updates, state, params=None, **extra):
        size = get_batch_size_from_per_elt_updates(updates, self.per_elt_axis)

        def of_batch(g):
            mean = jnp.mean(g, axis=self.per_elt_axis, keepdims=True)
            return jnp.squeeze(mean, self.per_elt_axis), jnp.sum(abs_sq(g - mean), axis=self.per_elt_axis)

        means, squares = (beside(params, x) for x in leafwise.unzip_map(of_batch, updates, outputs=2))
        if self.accumulation_steps == 1:
            return (means, {"sum_sq_diff_grads": squares, "sample_size": size}), state
        count = tick(state.micro_step)
        ready, share = count == self.accumulation_steps, 1 / as_float(count)
        weight = as_float(state.micro_step) * size * share  # n_1 n_2 / (n_1 + n_2), n_1 the examples before

        def leaf(m, s, mean, square):
            mean, square = mean + (m - mean) * share, square + s + abs_sq(m - mean) * weight
            out = lambda x: jnp.where(ready, x, jnp.zeros_like(x))
            keep = lambda x: jnp.where(ready, jnp.zeros_like(x), x)
            return out(mean), out(square), keep(mean), keep(square)

        rows = leafwise.unzip_map(leaf, means, squares, state.mean_grads, state.sum_sq_diff_grads, outputs=4)
        mean, square, kept_mean, kept_square = rows
        aux = {"sum_sq_diff_grads": square, "sample_size": jnp.where(ready, size * count, 0)}
        state = PerElementMeanAndSumSqDiffGradsState(jnp.where(ready, 0, count), ready, kept_mean, kept_square)
        return (mean, aux), state

    update = public("update", _with_aux, bare_update)  # pyright: ignore[reportAssignmentType]


@state
class PerElementMeanAndVarianceEMAState(NamedTuple):
    """State of `track_per_element_mean_and_variance_with_ema`."""

    count: Array  # int32 scalar: updates made so far
    ema_decay: Array  # scalar: the decay of the last update
    mean_grads_ema: Updates  # moving average of the mean gradient from zero, float32 or wider
    variance_grads_ema: Updates  # and of the variance, real


@transformation
class track_per_element_mean_and_variance_with_ema(GradientTransformation):
    """Keeps moving averages of the gradient's mean and variance over the examples. The updates pass through.

        m = d m + (1 - d) g,       v = d v + (1 - d) s / (n - 1)            from zero, d = ema_decay

    `get_unbiased_mean_and_variance_ema` reads them.

    Args:
      ema_decay: in [0, 1); the memory is about 1 / (1 - ema_decay) updates.

    State: 8 bytes, and 8 per float32 parameter. Reads: mean gradients; `sum_sq_diff_grads=` and `sample_size=`, s and
      n, which `get_per_element_mean_and_sum_sq_diff_grads` gives in `process`.
    Differs from Optax: of one example the variance is 0, not NaN.
    """

    ema_decay: Hyperparameter = number(default=0.9, within="[0, 1)")

    def init(self, params):
        mean, variance = leafwise.zeros(params), leafwise.zeros(params, real=True)
        return PerElementMeanAndVarianceEMAState(start(), jnp.zeros((), jnp.float32), mean, variance)

    def update(self, updates, state, params=None, *, sum_sq_diff_grads=None, sample_size=None):
        if sum_sq_diff_grads is None or sample_size is None:
            raise ValueError(
                f"`{self.name}` reads `sum_sq_diff_grads=` and `sample_size=`: put it behind "
                "`get_per_element_mean_and_sum_sq_diff_grads` in `process(..., aggregator_has_aux=True)`."
            )
        (decay,) = at(state.count, self.ema_decay)
        freedom = 1 / as_float(jnp.maximum(sample_size - 1, 1))
        leaf = lambda g, s, m, v: (g, s, ema(m, g, decay), ema(v, s * freedom, decay))
        rows = (updates, sum_sq_diff_grads, state.mean_grads_ema, state.variance_grads_ema)
        updates, _, mean, variance = leafwise.unzip_map(leaf, *rows, outputs=4)
        decay = jnp.asarray(decay, jnp.float32)
        return updates, PerElementMeanAndVarianceEMAState(tick(state.count), decay, mean, variance)


def get_unbiased_mean_and_variance_ema(state: State) -> tuple[Updates, Updates]:
    """The averages that `track_per_element_mean_and_variance_with_ema` keeps, divided by 1 - d^t; 0 before an update.

    Args:
      state: of any transformation that holds it.

    Raises:
      ValueError: none is in the state, or several are.
    """
    is_one = lambda x: type(x).__name__ == PerElementMeanAndVarianceEMAState.__name__
    found: list[Any] = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if len(found) != 1:
        raise ValueError(
            "`get_unbiased_mean_and_variance_ema`: the state must hold one PerElementMeanAndVarianceEMAState, found "
            f"{len(found)}."
        )
    mass = ema_mass(found[0].ema_decay, jnp.maximum(found[0].count, 1))
    unbiased = lambda tree: jax.tree.map(lambda x: x / mass.astype(x.real.dtype), tree)
    return unbiased(found[0].mean_grads_ema), unbiased(found[0].variance_grads_ema)


def add_mean_variance_to_opt(
    opt: Any,
    ema_decay: Hyperparameter = 0.9,
    per_elt_axis: int | Sequence[int] = 0,
    accumulation_steps: int = 1,
) -> GradientTransformation:
    """An optimizer of the mean gradient that also keeps averages of the gradient's mean and variance over the examples.

        updates, state = tx.update(jax.vmap(jax.grad(loss), (None, 0))(params, batch), state, params)
        mean, variance = get_unbiased_mean_and_variance_ema(state)

    Args:
      opt: the optimizer, or a foreign `(init, update)` pair.
      ema_decay: as in `track_per_element_mean_and_variance_with_ema`.
      per_elt_axis, accumulation_steps: as in `get_per_element_mean_and_sum_sq_diff_grads`.
    """
    aggregator = get_per_element_mean_and_sum_sq_diff_grads(per_elt_axis, accumulation_steps)
    return process(identity(), aggregator, chain(track_per_element_mean_and_variance_with_ema(ema_decay), opt), True)

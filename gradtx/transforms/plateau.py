"""A rate that falls when a measured value does not."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, as_float, at, now, start, tick
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, transformation
from gradtx.placement import differing_like
from gradtx.value import number, state


@state
class ReduceLROnPlateauState(NamedTuple):
    """State of `reduce_on_plateau`. Scalars; floats are float32 or wider."""

    scale: Array  # what the updates are multiplied by now
    best_value: Array  # the lowest average so far
    plateau_count: Array  # int32: averages in a row that were no improvement
    cooldown_count: Array  # int32: averages for which it still rests
    count: Array  # int32: values in the average so far
    avg_value: Array  # the average so far


@transformation
class reduce_on_plateau(GradientTransformation):
    """Multiplies the updates by a factor that falls each time a value has stopped falling.

        a = mean of `accumulation_size` values;      it is an improvement if a < best - rtol |best| - atol
        after `patience` averages in a row without one:      scale <- max(factor scale, min_scale)
        u = scale g                                  scale is 1 at the start

    After each cut it rests for `cooldown` averages, which count as no plateau. Put it last in a chain:

        tx = chain(adam(1e-3), reduce_on_plateau(patience=5))
        updates, state = tx.update(grads, state, params, value=loss)

    Args:
      factor: in (0, 1).
      patience: averages without improvement before a cut, 1 or more.
      rtol: least improvement, as a fraction of the best, in [0, 1].
      atol: least improvement, in units of the value. Not negative.
      cooldown: averages to rest after a cut, not negative.
      accumulation_size: values in an average, 1 or more: 1 for a validation loss, more for losses of mini-batches.
      min_scale: where the cuts end, in [0, 1].

    State: 24 bytes. Reads: updates; `value=`, the loss or another measure to be lowered, at every update.
    Raises:
      ValueError: no value, or not one number.
    Differs from Optax: a negative best counts by its size (there (1 - rtol) best lies above it, so that nothing ever is
      a plateau); `patience=0` is an error (there it cuts when the value improves); floats are float32 or wider.
    """

    factor: Hyperparameter = number(default=0.1, within="(0, 1)")
    patience: Any = number(default=10, integer=True, within="[1, inf)")
    rtol: Hyperparameter = number(default=1e-4, within="[0, 1]")
    atol: Hyperparameter = number(default=0.0, within="[0, inf)")
    cooldown: Any = number(default=0, integer=True, within="[0, inf)")
    accumulation_size: Any = number(default=1, integer=True, within="[1, inf)")
    min_scale: Hyperparameter = number(default=0.0, within="[0, 1]")

    def init(self, params):
        scale, best, average = (geometry.scalar(params, x) for x in (1, jnp.inf, 0))
        state = ReduceLROnPlateauState(scale, best, start(), start(), start(), average)
        return differing_like(state, params)

    def update(self, updates, state, params=None, *, value=None, **extra):
        factor, rtol, atol, min_scale = at(now(), self.factor, self.rtol, self.atol, self.min_scale)
        value = self._number(value, state.avg_value)
        count = tick(state.count)
        average = (as_float(state.count) * state.avg_value + value) / as_float(count)
        full = count >= self.accumulation_size

        best = state.best_value
        known = jnp.where(jnp.isinf(best), 0, best)  # infinity times 0 would be NaN
        improved = average < best - rtol * jnp.abs(known) - atol
        resting = state.cooldown_count > 0
        waited = jnp.where(improved | resting, 0, tick(state.plateau_count))
        cut = ~resting & (waited >= self.patience)
        rest = jnp.where(resting, state.cooldown_count - 1, jnp.where(cut, self.cooldown, 0))

        keep = lambda new, old: jnp.where(full, new, old)
        scale = keep(jnp.where(cut, jnp.maximum(factor * state.scale, min_scale), state.scale), state.scale)
        record(extra, learning_rate=lambda: scale)
        return leafwise.map(lambda g: g * scale.astype(g.real.dtype), updates), ReduceLROnPlateauState(
            scale=scale,
            best_value=keep(jnp.where(improved, average, best), best),
            plateau_count=keep(jnp.where(cut, 0, waited), state.plateau_count),
            cooldown_count=keep(rest, state.cooldown_count),
            count=keep(0, count),
            avg_value=keep(0, average),
        )

    def _number(self, value: Any, like: Array) -> Array:
        if value is None:
            raise ValueError(f"`{self.name}` reads a loss: call `update(updates, state, params, value=loss)`.")
        if jnp.shape(value):
            raise ValueError(f"`{self.name}`: value must be one number, got the shape {jnp.shape(value)}.")
        return jnp.asarray(value).astype(like.dtype)

"""Averages of the parameters, to evaluate with: the mean of the last ones, or an exponential moving average."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick, time
from gradtx.combine.masking import as_mask, chosen, kept
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.moments import ema_mass
from gradtx.types import Points
from gradtx.value import flag, number, part, state, static, storage_dtype


@state
class AverageParamsState(NamedTuple):
    """State of `average_params`."""

    count: Array  # int32 scalar: updates made so far
    average: Points  # of the parameters before the last update, stored as `average_dtype`; None where not averaged
    inner_state: State


@transformation
class average_params(GradientTransformation):
    """Does what `inner` does, and averages the parameters that it trains, to evaluate the model with.

        tx = average_params(adamw(1e-3), 0.999)
        ...
        eval_params(tx, state, params)

        a <- (1 - c) a + c p                        p after each update; before the first that counts, a = p
        eval_params = (1 - share) p + share a

        c = 1 / n                                   without `decay`: a is the mean of n parameters
        c = 1 - decay                               with it; a starts at the parameters before the first that counts
        c = (1 - decay) / (1 - decay^n)             and `debias`: a is a mean of the n parameters alone
        c = max(c, (1 + (n - 1) / warmup_steps)^-warmup)            and `warmup`

    The updates are those of `inner`, to the bit. What is averaged are the parameters as they are stored, before the
    next update; where `inner` has parameters of its own to evaluate with, those.

    Args:
      inner: a transformation that ends in a descent step, or a foreign `(init, update)` pair; the whole chain.
      decay: of the average, in [0, 1]; None for the mean. A schedule is read at the number of parameters averaged so
        far, 0 at the first.
      start: the number of the first update whose parameters count, from 1: of T updates, T - n + 1 for a tail of n.
      every: how many updates there are from one that counts to the next, at least 1.
      debias: keep the parameters before the first out of the average.
      warmup: the power, positive; None for none. With 1 and `warmup_steps` 1 it is the mean at first.
      warmup_steps: in numbers of parameters averaged, positive.
      share: of the average in what is evaluated, in [0, 1].
      mask: which leaves are averaged; the others are evaluated as they are. See `add_decayed_weights`.
      average_dtype: storage of the average; None means float32 or wider. Below it a long average stands still.

    State: 4 bytes per float32 parameter, 4, and the inner one's. Reads: params; what the inner one reads. With `adamw`
      on a CPU a step moves 60 bytes per parameter instead of 40 (compiled program, float32).
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: Polyak, Juditsky, Acceleration of stochastic approximation by averaging, 1992; Izmailov et al., Averaging
      weights leads to wider optima, UAI 2018 (arXiv:1803.05407), with `start` and `every`; the moving average as in
      torch.optim.swa_utils, warm-up as in timm's ModelEmaV3: `decay=min(decay, (1 + n) / (10 + n))`, TensorFlow's, is a
      schedule.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    decay: Hyperparameter | None = number(default=None, within="[0, 1]", optional=True)
    start: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)
    every: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)
    debias: bool = flag(default=False, kw_only=True)
    warmup: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True, kw_only=True)
    warmup_steps: Hyperparameter = number(default=1.0, within="(0, inf)", kw_only=True)
    share: Hyperparameter = number(default=1.0, within="[0, 1]", kw_only=True)
    mask: Any = static(default=None, convert=as_mask, kw_only=True)
    average_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        averaged = kept(params, chosen(self.mask, params, self.name))
        stored = jax.eval_shape(lambda p: leafwise.zeros(p, self.average_dtype), averaged)
        average = leafwise.cast_like(geometry.copied(averaged), stored)
        return AverageParamsState(start(), average, self.inner.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        average = self._with(self.inner.eval_params(state.inner_state, params), state)
        with time(state.count):
            outgoing, inner = self.inner.bare_update(updates, state.inner_state, params, **extra)
        return outgoing, AverageParamsState(tick(state.count), average, inner)

    def eval_params(self, state, params):
        evaluated = self.inner.eval_params(state.inner_state, params)
        wide = state._replace(average=leafwise.widen(state.average))
        average = self._with(leafwise.widen(leafwise.floats(evaluated)), wide)
        (share,) = at(state.count, self.share)

        return leafwise.evaluated(lambda p, a: (1 - share) * p + share * a, evaluated, average)

    def _with(self, params: Params, state: AverageParamsState) -> Params:
        """The average with the parameters after the last update in it, where they count."""
        since = state.count - self.start
        counts, n = (since >= 0) & (since % self.every == 0), jnp.maximum(since, 0) // self.every + 1
        weight = jnp.where(since < 0, 1, jnp.where(counts, self._weight(n), 0))

        def leaf(a, p):
            c = weight.astype(a.real.dtype)
            return jnp.where(c == 0, a, (1 - c) * a + c * p.astype(a.dtype))

        return leafwise.map(leaf, state.average, params)

    def _weight(self, n: Array) -> Array:
        """c, of the n-th parameters that count."""
        if self.decay is None:
            return 1 / as_float(n)
        decay, steps = at(n - 1, self.decay, self.warmup_steps)
        c = 1 - decay
        if self.debias:
            mass = ema_mass(decay, n)
            c = jnp.where(mass > 0, c / jnp.where(mass > 0, mass, 1), 1 / as_float(n))
        if self.warmup is not None:
            (power,) = at(n - 1, self.warmup)
            c = jnp.maximum(c, (1 + as_float(n - 1) / steps) ** -power)
        return jnp.asarray(c)

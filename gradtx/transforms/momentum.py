"""Averages of the updates over time: the decayed sum and the moving average."""

from typing import Any, NamedTuple

import jax
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now, start, tick
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.moments import ema as moving_average
from gradtx.moments import unbiased_mean
from gradtx.types import Means
from gradtx.value import flag, number, state, storage_dtype


@state
class TraceState(NamedTuple):
    """State of `trace`."""

    trace: Means  # decayed sum of g, stored as `accumulator_dtype`


@transformation
class trace(GradientTransformation):
    """Replaces the updates by their decayed sum: momentum.

        v = decay v + g
        u = v                        u = g + decay v   with nesterov

    Nesterov's form is that of Sutskever et al., written for the parameters at which the gradient is taken: with
    theta' = theta - decay v it is v = decay v + lr grad(theta - decay v), theta = theta - v.

    Args:
      decay: in [0, 1]; the memory is about 1 / (1 - decay) updates, all of them at 1. A constant gradient is amplified
        by that much.
      nesterov: look one step ahead.
      accumulator_dtype: storage of v; None means float32 or wider.

    State: 4 bytes per float32 parameter. Reads: updates only.
    Source: Polyak, Some methods of speeding up the convergence of iteration methods, 1964; Sutskever, Martens, Dahl,
      Hinton, On the importance of initialization and momentum in deep learning, ICML 2013.
    """

    decay: Hyperparameter = number(within="[0, 1]")
    nesterov: bool = flag(default=False)
    accumulator_dtype: DTypeLike | None = storage_dtype(default=None)

    def init(self, params):
        return TraceState(leafwise.zeros(params, self.accumulator_dtype))

    def update(self, updates, state, params=None, **extra):
        (decay,) = at(now(), self.decay)

        def leaf(g, v):
            v = decay * v + g
            return g + decay * v if self.nesterov else v, v

        updates, v = leafwise.unzip_map(leaf, updates, state.trace, outputs=2)
        return updates, TraceState(v)


@state
class EmaState(NamedTuple):
    """State of `ema`."""

    count: Array  # int32 scalar: updates made so far
    ema: Means  # moving average of g from zero, stored as `accumulator_dtype`


@transformation
class ema(GradientTransformation):
    """Replaces the updates by their exponential moving average.

        m = decay m + (1 - decay) g
        u = m / (1 - decay^t)            u = m   without debias

    Args:
      decay: in [0, 1); the memory is about 1 / (1 - decay) updates.
      debias: divide by 1 - decay^t, so that the average of a constant is that constant from the first update on.
      accumulator_dtype: storage of m; None means float32 or wider.
      nesterov: look one step ahead, u = decay m / (1 - decay^(t+1)) + (1 - decay) g / (1 - decay^t), without debias
        u = decay m + (1 - decay) g: the direction of `trace` with nesterov (Dozat, 2016).

    State: 4 bytes per float32 parameter. Reads: updates only.
    """

    decay: Hyperparameter = number(within="[0, 1)")
    debias: bool = flag(default=True)
    accumulator_dtype: DTypeLike | None = storage_dtype(default=None)
    nesterov: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return EmaState(start(), ema=leafwise.zeros(params, self.accumulator_dtype))

    def update(self, updates, state, params=None, **extra):
        (decay,) = at(state.count, self.decay)
        count = tick(state.count)
        mean = unbiased_mean(decay, count, self.nesterov, self.debias)

        def leaf(g, m):
            m = moving_average(m, g, decay)
            return mean(m, g), m

        updates, m = leafwise.unzip_map(leaf, updates, state.ema, outputs=2)
        return updates, EmaState(count, m)


def as_momentum(owner: str, momentum: Any) -> GradientTransformation:
    """A transformation as it is; of a decay b, Nesterov's form of the average with that decay, with its bias."""
    if isinstance(momentum, tuple) or (hasattr(momentum, "update") and not isinstance(momentum, jax.Array)):
        return as_transformation(owner, "momentum", momentum)
    return ema(momentum, debias=False, nesterov=True)

"""SGD with Polyak's step size (Loizou et al., 2021): as long as the loss is high, as short as the slope is steep."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, as_float, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, transformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, static


@transformation
class scale_by_polyak(GradientTransformation):
    """Multiplies the updates by Polyak's step size, which makes the loss's linear model reach its least value.

        rate = min((value - f_min) / (|g|^2 + eps), max_learning_rate)       |g| over all leaves
        u = rate g                       0 where |g|^2 + eps is at most 2.2e-16

        updates, state = tx.update(grads, state, params, value=loss)

    Args:
      f_min: the loss's least value, or a bound below it. Any finite number.
      max_learning_rate: bound of the rate. Not negative; infinity for none.
      eps: added to |g|^2, in squared units of the gradient. Not negative.
      variant: "sps"; or "sps+", where a value below `f_min` gives rate 0 instead of a step uphill.
      axis: as in `clip_by_global_norm`; the value is then that of all devices, such as their mean.

    State: the time. Reads: updates, every leaf once more, for the norm; `value=`, the loss that the gradients are of.
    Source: Loizou, Vaswani, Laradji, Lacoste-Julien, Stochastic Polyak step-size for SGD, AISTATS 2021, equation 3
      (arXiv:2002.10542); Garrigos, Gower, Schaipp, Function value learning, 2023 (arXiv:2307.14528), for "sps+".
    """

    f_min: Hyperparameter = number(default=0.0)
    max_learning_rate: Hyperparameter = number(default=1.0, within="[0, inf]")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    variant: str = static(default="sps", one_of=("sps", "sps+"))
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, *, value: Any = None, **extra):
        if value is None:
            raise TypeError(f"`{self.name}` reads the loss: call `update(updates, state, params, value=loss)`.")
        f_min, most, eps = at(state.count, self.f_min, self.max_learning_rate, self.eps)
        square = jnp.square(leafwise.norm(updates, axis=self.axis)) + eps
        gap = leafwise.widen(as_float(value)).astype(square.dtype) - f_min
        gap = jnp.maximum(gap, 0) if self.variant == "sps+" else gap
        flat = square <= jnp.finfo(float).eps
        rate = jnp.where(flat, 0, jnp.minimum(gap / jnp.where(flat, 1, square), most))
        record(extra, learning_rate=lambda: rate)
        rate = jax.lax.optimization_barrier(rate)  # or XLA computes it anew for every leaf
        leaf = lambda g: g * rate.astype(jnp.finfo(g.dtype).dtype)
        return leafwise.map(leaf, updates), ClockState(tick(state.count))


def polyak_sgd(
    max_learning_rate: Hyperparameter = 1.0,
    scaling: Hyperparameter = 1.0,
    f_min: Hyperparameter = 0.0,
    eps: Hyperparameter = 0.0,
    variant: str = "sps",
    *,
    axis: Axis = None,
) -> GradientTransformation:
    """SGD whose learning rate comes from the loss: needs `value=`. Other arguments: `scale_by_polyak`.

        p <- p - scaling min((value - f_min) / (scaling^2 |g|^2 + eps), max_learning_rate) scaling g

        updates, state = tx.update(grads, state, params, value=loss)

    Args:
      scaling: multiplies the gradient first; the rate is made of what comes of it. A number or a schedule.
    """
    core = scale_by_polyak(f_min, max_learning_rate, eps, variant, axis=axis)
    return chain(scale_by_learning_rate(scaling), core)

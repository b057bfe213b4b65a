"""Rprop (Riedmiller & Braun, 1993): a step for every coordinate, longer while the gradient keeps its sign."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state


@state
class ScaleByRpropState(NamedTuple):
    """State of `scale_by_rprop`."""

    step_sizes: Params  # each coordinate's step, in units of the parameters, float32 or wider
    prev_updates: Means  # the last updates, whose signs are read, float32 or wider


@transformation
class scale_by_rprop(GradientTransformation):
    """Replaces each gradient entry by its sign times a step size that grows while the sign stays.

        s = min(s eta_plus, max_step_size),    u = s sign(g)          where g has the sign of the last update
        s = max(s eta_minus, min_step_size),   u = 0                  where it has the other
        s = s,                                 u = s sign(g)          where one of them is 0

    Of the gradient only the signs count, so it should be of the whole data set: noise near a minimum is a sign too.
    The real and the imaginary part of a complex entry are two coordinates.

    Args:
      learning_rate: s at the start, in units of the parameters. Not negative. A schedule is read at 0.
      eta_minus: in [0, 1].
      eta_plus: 1 or more.
      min_step_size, max_step_size: bounds of s after it changed, in units of the parameters. Not negative.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Riedmiller, Braun, A direct adaptive method for faster backpropagation learning: the RPROP algorithm, 1993;
      Igel, Huesken, Improving the Rprop learning algorithm, 2000, whose iRprop- this is: no step is taken back.
      Differs from Optax, whose updates are those of the gradient before: the first is 0.
    """

    learning_rate: Hyperparameter = number(within="[0, inf)")
    eta_minus: Hyperparameter = number(default=0.5, within="[0, 1]")
    eta_plus: Hyperparameter = number(default=1.2, within="[1, inf)")
    min_step_size: Hyperparameter = number(default=1e-6, within="[0, inf)")
    max_step_size: Hyperparameter = number(default=50.0, within="[0, inf]")

    def init(self, params):
        (size,) = at(start(), self.learning_rate)
        leaf = lambda s: s * (1 + 1j) if jnp.iscomplexobj(s) else s
        return ScaleByRpropState(leafwise.map(leaf, leafwise.full(params, size)), leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        minus, plus, least, most = at(now(), self.eta_minus, self.eta_plus, self.min_step_size, self.max_step_size)

        def coordinate(g, s, last):
            kept = jnp.sign(g) * jnp.sign(last)  # the product of the numbers could be too small for float32
            s = jnp.where(kept == 0, s, jnp.clip(s * jnp.where(kept > 0, plus, minus), least, most))
            return s, jnp.where(kept < 0, 0, s * jnp.sign(g))

        def leaf(g, s, last):
            if jnp.iscomplexobj(g):
                parts = (coordinate(*(part(x) for x in (g, s, last))) for part in (jnp.real, jnp.imag))
                s, u = (jax.lax.complex(*x) for x in zip(*parts, strict=True))
            else:
                s, u = coordinate(g, s, last)
            return u, s, u

        updates, s, u = leafwise.unzip_map(leaf, updates, state.step_sizes, state.prev_updates, outputs=3)
        return updates, ScaleByRpropState(s, u)


def rprop(
    learning_rate: Hyperparameter,
    eta_minus: Hyperparameter = 0.5,
    eta_plus: Hyperparameter = 1.2,
    min_step_size: Hyperparameter = 1e-6,
    max_step_size: Hyperparameter = 50.0,
) -> GradientTransformation:
    """Rprop: for gradients of the whole data set. Other arguments: `scale_by_rprop`.

        p <- p - s sign(g)

    Args:
      learning_rate: the first step of every coordinate, in units of the parameters. Later ones find their own.
    """
    core = scale_by_rprop(learning_rate, eta_minus, eta_plus, min_step_size, max_step_size)
    return chain(core, scale_by_learning_rate(1.0))

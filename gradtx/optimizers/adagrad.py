"""AdaGrad (Duchi, Hazan, Singer, 2011): steps that shrink with the squares of all gradients so far."""

from typing import NamedTuple

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Squares
from gradtx.value import number, state


@state
class ScaleByRssState(NamedTuple):
    """State of `scale_by_rss`."""

    sum_of_squares: Squares  # initial_accumulator_value + sum of |g|^2, real, float32 or wider


@transformation
class scale_by_rss(GradientTransformation):
    """Divides the gradient by the root of the sum of its squares to date.

        s = s + |g|^2
        u = g / sqrt(s + eps)            u = 0 where s = 0

    Args:
      initial_accumulator_value: s at the start, in squared units of the gradient. Not negative. 0 is the paper's; the
        default is Optax's and TensorFlow's. A schedule is read at 0.
      eps: inside the root, in squared units of the gradient. Not negative.

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Source: Duchi, Hazan, Singer, Adaptive subgradient methods, JMLR 2011, the diagonal case; eps inside the root.
    """

    initial_accumulator_value: Hyperparameter = number(default=0.1, within="[0, inf)")
    eps: Hyperparameter = number(default=1e-7, within="[0, inf)")

    def init(self, params):
        (initial,) = at(start(), self.initial_accumulator_value)
        return ScaleByRssState(leafwise.full(params, initial, real=True))

    def update(self, updates, state, params=None, **extra):
        (eps,) = at(now(), self.eps)

        def leaf(g, s):
            s = s + abs_sq(g)
            return g * jnp.where(s > 0, 1 / jnp.sqrt(jnp.where(s > 0, s + eps, 1.0)), 0.0), s

        updates, s = leafwise.unzip_map(leaf, updates, state.sum_of_squares, outputs=2)
        return updates, ScaleByRssState(s)


def adagrad(
    learning_rate: Hyperparameter,
    initial_accumulator_value: Hyperparameter = 0.1,
    eps: Hyperparameter = 1e-7,
) -> GradientTransformation:
    """AdaGrad: each coordinate's rate falls with the root of its summed squares. Other arguments: `scale_by_rss`.

        s = s + |g|^2;  p <- p - learning_rate g / sqrt(s + eps)

    Args:
      learning_rate: in units of the parameters.
    """
    return chain(scale_by_rss(initial_accumulator_value, eps), scale_by_learning_rate(learning_rate))

"""Optimistic gradient descent (Popov, 1980): the gradient and its last change, for games with a saddle point."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state


@state
class ScaleByOptimisticGradientState(NamedTuple):
    """State of `scale_by_optimistic_gradient`."""

    is_initial_step: Array  # bool scalar: whether no update has been made
    previous_gradient: Means  # the last g, float32 or wider


@transformation
class scale_by_optimistic_gradient(GradientTransformation):
    """Adds the last change of the updates to them.

        u = alpha g + beta (g - last g)            u = alpha g at the first update

    Args:
      alpha: weight of the gradient; any finite number.
      beta: weight of its change; any finite number. At alpha the next gradient is foreseen as g + (g - last g).

    State: 4 bytes per float32 parameter. Reads: updates only.
    Source: Mokhtari, Ozdaglar, Pattathil, A unified analysis of extra-gradient and optimistic gradient methods for
      saddle point problems, AISTATS 2020, generalized OGDA (arXiv:1901.08511); Popov, 1980, with alpha = beta.
    """

    alpha: Hyperparameter = number(default=1.0)
    beta: Hyperparameter = number(default=1.0)

    def init(self, params):
        return ScaleByOptimisticGradientState(jnp.array(True), leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        alpha, beta = at(now(), self.alpha, self.beta)

        def leaf(g, last):
            last = jnp.where(state.is_initial_step, g, last)
            return (alpha + beta) * g - beta * last, jnp.copy(g)  # the caller's gradient may be donated

        updates, g = leafwise.unzip_map(leaf, updates, state.previous_gradient, outputs=2)
        return updates, ScaleByOptimisticGradientState(jnp.array(False), g)


def optimistic_gradient_descent(
    learning_rate: Hyperparameter,
    alpha: Hyperparameter = 1.0,
    beta: Hyperparameter = 1.0,
) -> GradientTransformation:
    """Gradient descent that foresees the next gradient. Others: `scale_by_optimistic_gradient`.

        p <- p - learning_rate (alpha g + beta (g - last g))

    Where plain descent and ascent circle around the saddle point of a game, this one comes to it.

    Args:
      learning_rate: in units of the parameters per unit of gradient.
    """
    return chain(scale_by_optimistic_gradient(alpha, beta), scale_by_learning_rate(learning_rate))

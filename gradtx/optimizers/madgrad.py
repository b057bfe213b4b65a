"""MADGRAD (Defazio, Jelassi, 2021): dual averaging from the first parameters, with cube roots and momentum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import abs_sq
from gradtx.transforms.decay import add_decayed_weights
from gradtx.types import Squares
from gradtx.value import number, state


@state
class MadgradState(NamedTuple):
    """State of `scale_by_madgrad`."""

    count: Array  # int32 scalar: updates made so far
    grad_sum_sq: Squares  # nu, weighted sum of |g|^2, real, float32 or wider
    s: Params  # weighted sum of g, float32 or wider
    x0: Params  # the parameters before the first update, as they were stored


@transformation
class scale_by_madgrad(GradientTransformation):
    """Turns gradients into steps toward the minimum of their weighted sum, as seen from the first parameters.

        a = (learning_rate + eps) sqrt(t),        s = s + a g,        nu = nu + a |g|^2         from zero
        z = p0 - s / (cbrt(nu) + eps)             p0 where nu and eps are 0
        u = (1 - momentum) (z - p)

    These are whole descent steps: no learning rate follows.

    Args:
      learning_rate: about that of SGD; the method is scaled with its 2/3 power.
      momentum: share of p that each step keeps, in [0, 1].
      eps: beside the cube root, whose unit it has, and on the learning rate, as in the authors' code: at rate 0
        there still is a small step. Not negative.

    State: 12 bytes per float32 parameter. Reads: params.
    Source: Defazio, Jelassi, Adaptivity without compromise: a momentumized, adaptive, dual averaged gradient method for
      stochastic optimization, JMLR 2022, Algorithm 1 (arXiv:2101.11075).
    Differs from Optax: the sums are float32 or wider whatever the parameters are, and the first parameters a copy.
    """

    learning_rate: Hyperparameter = number()
    momentum: Hyperparameter = number(default=0.9, within="[0, 1]")
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")

    def init(self, params):
        return MadgradState(
            start(), leafwise.zeros(params, real=True), s=leafwise.zeros(params), x0=geometry.copied(params)
        )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        rate, momentum, eps = at(state.count, self.learning_rate, self.momentum, self.eps)
        count = tick(state.count)
        weight = (rate + eps) * jnp.sqrt(as_float(count))
        record(extra, learning_rate=lambda: jnp.asarray(rate))

        def leaf(g, nu, s, p0, p):
            nu, s = nu + weight * abs_sq(g), s + weight * g
            return (1 - momentum) * (p0 - geometry.ratio(jnp.conj(s), cube_root(nu) + eps) - p), nu, s

        updates, nu, s = leafwise.unzip_map(leaf, updates, state.grad_sum_sq, state.s, state.x0, params, outputs=3)
        return updates, MadgradState(count, nu, s, state.x0)


def cube_root(x: Array) -> Array:
    """The cube root of x >= 0, with derivative 0 at 0."""
    return jnp.where(x > 0, jnp.cbrt(jnp.where(x > 0, x, 1)), 0)


def madgrad(
    learning_rate: Hyperparameter,
    momentum: Hyperparameter = 0.9,
    weight_decay: Hyperparameter = 0.0,
    eps: Hyperparameter = 1e-6,
) -> GradientTransformation:
    """Dual averaging with momentum, adaptive with the cube root of the sum of squares. Others: `scale_by_madgrad`.

    Args:
      weight_decay: added to the gradient, weight_decay p: use less than with SGD, or none. Not negative.
    """
    return chain(add_decayed_weights(weight_decay), scale_by_madgrad(learning_rate, momentum, eps))

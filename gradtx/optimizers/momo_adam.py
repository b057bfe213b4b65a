"""MoMo-Adam (Schaipp et al., 2023): Adam whose rate is Polyak's step for a model of the loss, up to a maximum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.optimizers.momo import polyak_step, required_value
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state


@state
class MomoAdamState(NamedTuple):
    """State of `momo_adam`."""

    exp_avg: Means  # mu, running mean of g, float32 or wider
    exp_avg_sq: Squares  # nu, running mean of |g|^2, real, float32 or wider
    barf: Array  # f, running mean of the loss, scalar, float32 or wider
    gamma: Array  # running mean of <g, p>, scalar, float32 or wider
    lb: Array  # lower bound of the loss, scalar, float32 or wider
    count: Array  # int32 scalar: updates made so far


@transformation
class momo_adam(GradientTransformation):
    """Adam with the step after which the averaged linear model of the loss is at its lower bound.

        mu = b1 mu + (1 - b1) g,    nu = b2 nu + (1 - b2) |g|^2        from zero, as f and c
        f = b1 f + (1 - b1) value,    c = b1 c + (1 - b1) <g, p>
        d = sqrt(nu / (1 - b2^t)) + eps,    a = 1 + learning_rate weight_decay,    m = 1 - b1^t
        tau = min(learning_rate / m, max(a (f - m lb - c) + <mu, p>, 0) / <mu, mu / d>)         0 where mu is 0
        p + u = (p - tau mu / d) / a             p (1 - learning_rate weight_decay) - tau mu / d   without divide

    Products are over all leaves. These are whole descent steps.

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)

    Args:
      learning_rate: Adam's, as the longest step; choose it large. Not negative.
      b1: decay of mu, f and c, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      lower_bound, weight_decay, adapt_lower_bound: as in `momo`.
      divide: False decays as AdamW does, which is near to it.

    State: 8 bytes per float32 parameter and 16. Reads: params; `value=`, the loss whose gradients the updates are.
    Raises:
      ValueError: no value, or no params.
    Source: Schaipp et al., MoMo: momentum models for adaptive learning rates, ICML 2024, Algorithms 2 and 3
      (arXiv:2305.07583).
    Differs from Optax: the step is divided by a, too, as in `momo`; scalars are float32 or wider whatever the
      parameters are; tau is 0 where mu is 0, not wherever <mu, mu / d> is below 2e-16; of complex g, nu holds |g|^2.
    """

    learning_rate: Hyperparameter = number(default=1e-2, within="[0, inf)")
    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    lower_bound: Hyperparameter = number(default=0.0)
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    adapt_lower_bound: bool = flag(default=False)
    divide: bool = flag(default=True, kw_only=True)

    def init(self, params):
        (bound,) = at(start(), self.lower_bound)
        f, c, lb = (geometry.scalar(params, x) for x in (0, 0, bound))
        return MomoAdamState(leafwise.zeros(params), leafwise.zeros(params, real=True), f, c, lb, start())

    def update(self, updates, state, params=None, *, value=None, **extra):
        params = require_params(params, self)
        b1, b2, eps, lowest = at(state.count, self.b1, self.b2, self.eps, self.lower_bound)
        rate, decay = at(state.count, self.learning_rate, self.weight_decay)
        count = tick(state.count)
        mass, scale2 = ema_mass(b1, count), 1 / ema_mass(b2, count)
        f = ema(state.barf, required_value(self, value, state.barf), b1)

        def averaged(g, mu, nu):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            return mu, nu, 1 / (root(nu * scale2) + eps)

        def entries(g, mu, nu, p):
            mu, _, inverse = averaged(g, mu, nu)
            return geometry.product(g, p), geometry.product(mu, p), abs_sq(mu) * inverse

        now, inner, square = geometry.totals(3, entries, updates, state.exp_avg, state.exp_avg_sq, params)
        c = ema(state.gamma, now, b1)
        bounds = (state.lb, lowest) if self.adapt_lower_bound else (state.lb, None)
        tau, lb = polyak_step(rate, rate * decay, mass, f - c, inner, square, *bounds)
        stretch = 1 + rate * decay if self.divide else 1
        shrink, tau = rate * decay / stretch, tau / stretch
        record(extra, learning_rate=lambda: tau * mass)

        def leaf(g, mu, nu, p):
            mu, nu, inverse = averaged(g, mu, nu)
            return -(tau * inverse * jnp.conj(mu) + shrink * p), mu, nu

        slots = state.exp_avg, state.exp_avg_sq
        updates, mu, nu = leafwise.unzip_map(leaf, updates, *slots, params, outputs=3)
        return updates, MomoAdamState(mu, nu, f, c, lb, count)

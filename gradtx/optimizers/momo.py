"""MoMo (Schaipp et al., 2023): momentum whose rate is Polyak's step for a model of the loss, up to a maximum."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import abs_sq, ema, ema_mass
from gradtx.types import Means
from gradtx.value import flag, number, state


@state
class MomoState(NamedTuple):
    """State of `momo`."""

    exp_avg: Means  # mu, running mean of g, float32 or wider
    barf: Array  # f, running mean of the loss, scalar, float32 or wider
    gamma: Array  # running mean of <g, p>, scalar, float32 or wider
    lb: Array  # lower bound of the loss, scalar, float32 or wider
    count: Array  # int32 scalar: updates made so far


@transformation
class momo(GradientTransformation):
    """Momentum with the step after which the averaged linear model of the loss is at its lower bound.

        mu = beta mu + (1 - beta) g,    f = beta f + (1 - beta) value,    c = beta c + (1 - beta) <g, p>
        a = 1 + learning_rate weight_decay
        tau = min(learning_rate, max(a (f - lb - c) + <mu, p>, 0) / |mu|^2)          0 where mu is 0
        p + u = (p - tau mu) / a

    At the first update mu, f and c are g, value and <g, p>. Products and norms are over all leaves. These are whole
    descent steps.

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)

    Args:
      learning_rate: the longest step, in units of the parameters per unit of gradient; choose it large. Not negative.
      beta: decay of the averages, in [0, 1).
      lower_bound: of the loss: 0 for most. A schedule is read at 0 for the first bound, at each step for the least.
      weight_decay: per update, before the learning rate multiplies it; the loss's model knows of it. Not negative.
      adapt_lower_bound: estimate the bound: lb rises to what the model says is left, and is halved where it proves too
        high, never below lower_bound.
      bias_correction: the averages start at zero, and with m = 1 - beta^t it is min(learning_rate / m, ...) and m lb.

    State: 4 bytes per float32 parameter and 16. Reads: params; `value=`, the loss whose gradients the updates are.
    Raises:
      ValueError: no value, or no params.
    Source: Schaipp et al., MoMo: momentum models for adaptive learning rates, ICML 2024, Algorithms 1 and 3
      (arXiv:2305.07583).
    Differs from Optax: the step is divided by a, too, as in the paper and its authors' code: p + u is where the model,
      with its weight decay, is least, and tau is computed for that. Scalars are float32 or wider whatever the
      parameters are; tau is 0 where mu is 0, not wherever |mu|^2 is below 2e-16.
    """

    learning_rate: Hyperparameter = number(default=1.0, within="[0, inf)")
    beta: Hyperparameter = number(default=0.9, within="[0, 1)")
    lower_bound: Hyperparameter = number(default=0.0)
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    adapt_lower_bound: bool = flag(default=False)
    bias_correction: bool = flag(default=False, kw_only=True)

    def init(self, params):
        (bound,) = at(start(), self.lower_bound)
        f, c, lb = (geometry.scalar(params, x) for x in (0, 0, bound))
        return MomoState(leafwise.zeros(params), f, c, lb, start())

    def update(self, updates, state, params=None, *, value=None, **extra):
        params = require_params(params, self)
        beta, rate, decay, lowest = at(state.count, self.beta, self.learning_rate, self.weight_decay, self.lower_bound)
        mass = ema_mass(beta, tick(state.count)) if self.bias_correction else 1
        beta = beta if self.bias_correction else jnp.where(state.count == 0, 0, beta)
        f = ema(state.barf, required_value(self, value, state.barf), beta)

        def entries(g, mu, p):
            mu = ema(mu, g, beta)
            return geometry.product(g, p), geometry.product(mu, p), abs_sq(mu)

        now, inner, square = geometry.totals(3, entries, updates, state.exp_avg, params)
        c = ema(state.gamma, now, beta)
        bounds = (state.lb, lowest) if self.adapt_lower_bound else (state.lb, None)
        tau, lb = polyak_step(rate, rate * decay, mass, f - c, inner, square, *bounds)
        shrink = rate * decay / (1 + rate * decay)
        tau = tau / (1 + rate * decay)
        record(extra, learning_rate=lambda: tau * mass)

        def leaf(g, mu, p):
            mu = ema(mu, g, beta)
            return -(tau * jnp.conj(mu) + shrink * p), mu

        updates, mu = leafwise.unzip_map(leaf, updates, state.exp_avg, params, outputs=2)
        return updates, MomoState(mu, f, c, lb, tick(state.count))


def required_value(tx: GradientTransformation, value: Any, like: Array) -> Array:
    """The loss, in the width of `like`, or an error that says who reads it."""
    if value is None:
        raise ValueError(
            f"`{tx.name}` reads the loss: call `update(updates, state, params, value=value)` with "
            "`value, grads = jax.value_and_grad(loss)(params)`."
        )
    if jnp.shape(value):
        raise ValueError(f"`{tx.name}`: value must be one number, got the shape {jnp.shape(value)}.")
    return jnp.asarray(value).astype(like.dtype)


def polyak_step(
    longest: Any, decay: Any, mass: Any, model: Array, inner: Array, square: Array, bound: Array, lowest: Any
) -> tuple[Array, Array]:
    """The step tau to where the model of the loss meets the bound, and the next bound.

    Args:
      longest: the learning rate. tau is at most this over the mass.
      decay: the learning rate times the weight decay.
      mass: of the averages: 1, or 1 - b^t where they are from zero.
      model: f - c. inner: <mu, p>. square: mu's squared norm, in the metric of the step.
      bound: of the loss. lowest: the least that it may become; None: it stays.
    """
    stretch = 1 + decay
    if lowest is not None:
        most = stretch * model + inner
        halved = jnp.maximum(most / (2 * mass * stretch), lowest)
        bound = jnp.where(most < stretch * mass * bound, halved, bound)
    wanted = jnp.maximum(stretch * (model - mass * bound) + inner, 0)
    tau = jnp.minimum(longest / mass, geometry.ratio(wanted, square))
    if lowest is None:
        return tau, bound
    return tau, jnp.maximum((model + inner - tau * square / 2) / mass, lowest)

"""RMSprop (Hinton, 2012): the gradient divided by a running root mean square; centred, by a running deviation."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.transforms.momentum import trace
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state


@state
class ScaleByRmsState(NamedTuple):
    """State of `scale_by_rms`."""

    nu: Squares  # running mean of |g|^2, real, float32 or wider


@state
class ScaleByRmsWithCountState(NamedTuple):
    """State of `scale_by_rms` with `bias_correction`."""

    count: Array  # int32 scalar: updates made so far
    nu: Squares


@transformation
class scale_by_rms(GradientTransformation):
    """Divides the gradient by its running root mean square.

        nu = decay nu + (1 - decay) |g|^2
        u = g / sqrt(nu + eps)               g / (sqrt(nu) + eps)   without eps_in_sqrt

    Args:
      decay: in [0, 1).
      eps: in squared units of the gradient inside the root, else in units of the gradient. Not negative.
      initial_scale: nu at the start. Not negative. A schedule is read at 0.
      eps_in_sqrt: where eps is added; PyTorch adds it outside.
      bias_correction: divide nu by 1 - decay^t.

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Source: Tieleman, Hinton, Lecture 6.5, Coursera, 2012; Graves 2013 (arXiv:1308.0850) for eps inside the root.
    """

    decay: Hyperparameter = number(default=0.9, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    initial_scale: Hyperparameter = number(default=0.0, within="[0, inf)")
    eps_in_sqrt: bool = flag(default=True)
    bias_correction: bool = flag(default=False)

    def init(self, params):
        (initial,) = at(start(), self.initial_scale)
        nu = leafwise.full(params, initial, real=True)
        return ScaleByRmsWithCountState(start(), nu) if self.bias_correction else ScaleByRmsState(nu)

    def update(self, updates, state, params=None, **extra):
        decay, eps = at(state.count if self.bias_correction else now(), self.decay, self.eps)
        count = {"count": tick(state.count)} if self.bias_correction else {}
        unbias = 1 / ema_mass(decay, count["count"]) if count else 1

        def leaf(g, nu):
            nu = ema(nu, abs_sq(g), decay)
            return g / _regularized_root(nu * unbias, eps, self.eps_in_sqrt), nu

        updates, nu = leafwise.unzip_map(leaf, updates, state.nu, outputs=2)
        return updates, state._replace(nu=nu, **count)


@state
class ScaleByRStdDevState(NamedTuple):
    """State of `scale_by_stddev`."""

    mu: Means  # running mean of g, float32 or wider
    nu: Squares  # running mean of |g|^2, real, float32 or wider


@state
class ScaleByRStdDevWithCountState(NamedTuple):
    """State of `scale_by_stddev` with `bias_correction`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means
    nu: Squares


@transformation
class scale_by_stddev(GradientTransformation):
    """Divides the gradient by its running standard deviation.

        mu = decay mu + (1 - decay) g,   nu = decay nu + (1 - decay) |g|^2
        u = g / sqrt(nu - |mu|^2 + eps)         g / (sqrt(nu - |mu|^2) + eps)   without eps_in_sqrt

    Arguments: `scale_by_rms`. The variance is kept from falling below 0, where rounding would put it.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Graves, Generating sequences with recurrent neural networks, 2013 (arXiv:1308.0850), equations 38-45.
    """

    decay: Hyperparameter = number(default=0.9, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    initial_scale: Hyperparameter = number(default=0.0, within="[0, inf)")
    eps_in_sqrt: bool = flag(default=True)
    bias_correction: bool = flag(default=False)

    def init(self, params):
        (initial,) = at(start(), self.initial_scale)
        slots = leafwise.zeros(params), leafwise.full(params, initial, real=True)
        return ScaleByRStdDevWithCountState(start(), *slots) if self.bias_correction else ScaleByRStdDevState(*slots)

    def update(self, updates, state, params=None, **extra):
        decay, eps = at(state.count if self.bias_correction else now(), self.decay, self.eps)
        count = {"count": tick(state.count)} if self.bias_correction else {}
        unbias = 1 / ema_mass(decay, count["count"]) if count else 1

        def leaf(g, mu, nu):
            mu, nu = ema(mu, g, decay), ema(nu, abs_sq(g), decay)
            variance = jnp.maximum(nu * unbias - abs_sq(mu * unbias), 0)
            return g / _regularized_root(variance, eps, self.eps_in_sqrt), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, state._replace(mu=mu, nu=nu, **count)


def rmsprop(
    learning_rate: Hyperparameter,
    decay: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-8,
    initial_scale: Hyperparameter = 0.0,
    eps_in_sqrt: bool = True,
    centered: bool = False,
    momentum: Hyperparameter | None = None,
    nesterov: bool = False,
    bias_correction: bool = False,
) -> GradientTransformation:
    """RMSprop: steps of about the learning rate in every coordinate. Other arguments: `scale_by_rms`.

        nu = decay nu + (1 - decay) |g|^2;  p <- p - learning_rate g / sqrt(nu + eps)

    Args:
      learning_rate: in units of the parameters.
      centered: divide by the standard deviation instead (`scale_by_stddev`).
      momentum: applied to the steps, after the learning rate: v = momentum v + step. None for none.
      nesterov: that momentum looks one step ahead.
    """
    if nesterov and momentum is None:
        raise ValueError("`rmsprop`: nesterov needs a momentum, got momentum=None.")
    scale_by = scale_by_stddev if centered else scale_by_rms
    links = [scale_by(decay, eps, initial_scale, eps_in_sqrt, bias_correction), scale_by_learning_rate(learning_rate)]
    return chain(*links) if momentum is None else chain(*links, trace(momentum, nesterov))


def _regularized_root(x: Array, eps: Array, eps_in_sqrt: bool) -> Array:
    return root(x + eps) if eps_in_sqrt else root(x) + eps

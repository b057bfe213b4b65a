"""AdaBelief (Zhuang et al., 2020): Adam that divides by the gradient's surprise instead of its size."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root, unbiased_mean
from gradtx.optimizers.radam import rectification
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state


@state
class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, float32 or wider
    nu: Squares  # running mean of |g - mu|^2, plus eps_root per update, real, float32 or wider


@state
class ScaleByBeliefWithMaxState(NamedTuple):
    """State of `scale_by_belief` with `amsgrad`."""

    count: Array
    mu: Means
    nu: Squares
    nu_max: Squares  # the largest nu so far, real, float32 or wider


@transformation
class scale_by_belief(GradientTransformation):
    """Divides the gradient's running mean by the root of its running squared distance from that mean.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g - mu|^2 + eps_root       from zero
        u = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: added into nu at every update, in squared units of the gradient. Not negative.
      nesterov: look one step ahead in mu, as in `scale_by_adam`.
      rectify: u = r mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps), with the r of `scale_by_radam`, and
        u = mu / (1 - b1^t) while its rho is below 5.
      amsgrad: the largest nu so far in the place of nu: n = max(n, nu), from zero.

    State: 8 bytes per float32 parameter, 12 with amsgrad. Reads: gradients only.
    Source: Zhuang et al., AdaBelief optimizer, NeurIPS 2020, Algorithm 2 (arXiv:2010.07468). `rectify`, on by default
      there, and `amsgrad` are their code's, which has eps_root = eps; when it rectifies, eps is beside the uncorrected
      root: eps / sqrt(1 - b2^t) here.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-16, within="[0, inf)")
    eps_root: Hyperparameter = number(default=1e-16, within="[0, inf)")
    nesterov: bool = flag(default=False, kw_only=True)
    rectify: bool = flag(default=False, kw_only=True)
    amsgrad: bool = flag(default=False, kw_only=True)

    def init(self, params):
        first = ScaleByBeliefState(start(), mu=leafwise.zeros(params), nu=leafwise.zeros(params, real=True))
        return ScaleByBeliefWithMaxState(*first, leafwise.zeros(params, real=True)) if self.amsgrad else first

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        mean, scale2 = unbiased_mean(b1, count, self.nesterov), 1 / ema_mass(b2, count)

        trusted, r = rectification(b2, count, 5.0) if self.rectify else (True, 1)

        def leaf(g, mu, nu, *nu_max):
            mu = ema(mu, g, b1)
            nu = b2 * nu + ((1 - b2) * abs_sq(g - mu) + eps_root)
            nu_max = [jnp.maximum(n, nu) for n in nu_max]
            m, divisor = mean(mu, g), root((nu_max[0] if nu_max else nu) * scale2) + eps
            return jnp.where(trusted, r * m / divisor, m) if self.rectify else m / divisor, mu, nu, *nu_max

        updates, *moments = leafwise.unzip_map(leaf, updates, *state[1:], outputs=len(state))
        return updates, type(state)(count, *moments)


def adabelief(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-16,
    eps_root: Hyperparameter = 1e-16,
    weight_decay: Hyperparameter | None = None,
    weight_decay_mask: Any = None,
    *,
    nesterov: bool = False,
    rectify: bool = False,
    amsgrad: bool = False,
) -> GradientTransformation:
    """AdaBelief: long steps where the gradient is as expected, short ones where it is not. Others: `scale_by_belief`.

    Args:
      learning_rate: in units of the parameters.
      weight_decay: decoupled, as in `adamw`; None for none.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, weight_decay_mask)]
    direction = scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov, rectify=rectify, amsgrad=amsgrad)
    return chain(direction, *decay, scale_by_learning_rate(learning_rate))

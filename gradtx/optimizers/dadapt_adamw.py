"""D-Adaptation (Defazio, Mishchenko, 2023): AdamW that estimates its own learning rate from its gradients' products."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, length, root
from gradtx.optimizers.prodigy import pair
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state


@state
class DAdaptAdamWState(NamedTuple):
    """State of `dadapt_adamw`."""

    exp_avg: Means  # mu, running mean of a g, float32 or wider
    exp_avg_sq: Squares  # nu, running mean of |g|^2, real, float32 or wider
    grad_sum: Params  # s, slower running mean of a g, float32 or wider
    estim_lr: Array  # d, scalar, float32 or wider
    numerator_weighted: Array  # r, scalar, float32 or wider
    count: Array  # int32 scalar: updates made so far


@transformation
class scale_by_dadapt_adamw(GradientTransformation):
    """What `dadapt_adamw` returns: whole descent steps, with the rate in them. The formula is there.

    Args:
      learning_rate: a factor on the estimated rate; 1, or a schedule that starts or peaks at 1.
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1); its root is that of s and r.
      eps: in units of the gradient. Not negative.
      estim_lr0: d at the start, in units of the parameters, positive: well below the distance to the solution. A
        schedule is read at 0.
      weight_decay: fraction of p removed per update, before d and the learning rate multiply it. Not negative.
      growth_rate: d grows by at most this factor per update; at least 1. None, by any. 1.02 warms up.
      bias_correction: False leaves sqrt(1 - b2^t) / (1 - b1^t) out of a.
    """

    learning_rate: Hyperparameter = number(default=1.0)
    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    estim_lr0: Hyperparameter = number(default=1e-6, within="(0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    growth_rate: Hyperparameter | None = number(default=None, within="[1, inf)", optional=True, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        (estim_lr0,) = at(start(), self.estim_lr0)
        return DAdaptAdamWState(
            exp_avg=leafwise.zeros(params),
            exp_avg_sq=leafwise.zeros(params, real=True),
            grad_sum=leafwise.zeros(params),
            estim_lr=geometry.scalar(params, estim_lr0),
            numerator_weighted=geometry.scalar(params, 0),
            count=start(),
        )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        rate, b1, b2 = at(state.count, self.learning_rate, self.b1, self.b2)
        eps, decay = at(state.count, self.eps, self.weight_decay)
        count, d = tick(state.count), state.estim_lr
        b3 = length(b2)
        share = (1 - b2) / (1 + b3)  # 1 - b3, without the loss of digits
        step = d * rate * (length(ema_mass(b2, count)) / ema_mass(b1, count) if self.bias_correction else 1)
        record(extra, learning_rate=lambda: d * rate)

        summed = lambda g, s: b3 * s + share * (step * g)

        def entries(g, s, nu):
            return geometry.product(g, jnp.conj(s) / (root(nu) + eps)), jnp.abs(summed(g, s))

        along, size = geometry.totals(2, entries, updates, state.grad_sum, state.exp_avg_sq)
        r = b3 * state.numerator_weighted + share * step * along
        new_d = jnp.maximum(d, geometry.ratio(r, share * size))
        if self.growth_rate is not None:
            (growth,) = at(state.count, self.growth_rate)
            new_d = jnp.minimum(new_d, d * growth)

        def leaf(g, mu, nu, s, p):
            mu, nu, s = ema(mu, step * g, b1), ema(nu, abs_sq(g), b2), summed(g, s)
            return -(jnp.conj(mu) / (root(nu) + eps) + decay * step * p), mu, nu, s

        slots = state.exp_avg, state.exp_avg_sq, state.grad_sum
        updates, mu, nu, s = leafwise.unzip_map(leaf, updates, *slots, params, outputs=4)
        return updates, DAdaptAdamWState(mu, nu, s, new_d, r, count)


def dadapt_adamw(
    learning_rate: Hyperparameter = 1.0,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    eps: Hyperparameter = 1e-8,
    estim_lr0: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0.0,
    *,
    growth_rate: Hyperparameter | None = None,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW whose learning rate is an estimate, from below, of the largest coordinate's distance to the solution.

        a = d learning_rate sqrt(1 - b2^t) / (1 - b1^t),    b3 = sqrt(b2)
        r = b3 r + (1 - b3) a <g, s / (sqrt(nu) + eps)>     s, nu before this update; <.,.> is over all leaves
        mu = b1 mu + (1 - b1) a g,        nu = b2 nu + (1 - b2) |g|^2,        s = b3 s + (1 - b3) a g       from zero
        d' = max(d, min(r / ((1 - b3) sum |s|), growth_rate d))         d where s is 0; the sum is over all leaves
        u = -(mu / (sqrt(nu) + eps) + weight_decay a p)

    d starts at `estim_lr0` and never falls. Use a schedule that decays, such as the cosine, with peak 1.

    Args:
      betas: (b1, b2). Other arguments: `scale_by_dadapt_adamw`.

    State: 12 bytes per float32 parameter and 12. Reads: params.
    Source: Defazio, Mishchenko, Learning-rate-free learning by D-Adaptation, ICML 2023, Algorithm 5
      (arXiv:2301.07733), with the bias correction and the weight decay of the authors' code.
    Differs from Optax: d and r are float32 or wider whatever the parameters are; where gradients have been zero d
      stays, instead of becoming NaN; of complex g, nu holds |g|^2.
    """
    b1, b2 = pair("dadapt_adamw", betas)
    args = (learning_rate, b1, b2, eps, estim_lr0, weight_decay)
    return scale_by_dadapt_adamw(*args, growth_rate=growth_rate, bias_correction=bias_correction)

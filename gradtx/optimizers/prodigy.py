"""Prodigy (Mishchenko, Defazio, 2023): AdamW that estimates its own learning rate from the distance travelled."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, length, root
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, static


@state
class ProdigyState(NamedTuple):
    """State of `prodigy`."""

    exp_avg: Means  # mu, running mean of d g, float32 or wider
    exp_avg_sq: Squares  # nu, running mean of |d g|^2, real, float32 or wider
    grad_sum: Params  # s, decayed sum of weighted gradients, float32 or wider
    params0: Params  # the parameters before the first update, as they were stored
    estim_lr: Array  # d, scalar, float32 or wider
    numerator_weighted: Array  # r, scalar, float32 or wider
    count: Array  # int32 scalar: updates made so far


@state
class ProdigyWithGrowthState(NamedTuple):
    """State of `prodigy` with a `growth_rate`: that without, and what d grows to."""

    exp_avg: Means
    exp_avg_sq: Squares
    grad_sum: Params
    params0: Params
    estim_lr: Array
    numerator_weighted: Array
    count: Array
    largest_estim_lr: Array  # the largest estimate so far, scalar, float32 or wider


@transformation
class scale_by_prodigy(GradientTransformation):
    """What `prodigy` returns: whole descent steps, with the rate in them. The formula is there.

    Args:
      learning_rate: a factor on the estimated rate; 1, or a schedule that starts or peaks at 1.
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      beta3: decay of r and s, in [0, 1); None: the root of b2.
      eps: in units of the gradient. Not negative.
      estim_lr0: d at the start, in units of the parameters, positive: well below the distance to the solution.
        A schedule is read at each step for the weights, and at 0 for the start.
      estim_lr_coef: factor on each estimate of d. Not negative.
      weight_decay: fraction of p removed per update, before d and the learning rate multiply it. Not negative.
      safeguard_warmup: leave the learning rate out of s, so that a warmup from 0 does not stop the estimate.
      weight_decay_mask: which leaves decay; None, all. See `add_decayed_weights`.
      growth_rate: d grows by at most this factor per update, toward the largest estimate so far; at least 1. None, by
        any. 1.02 warms up.
      bias_correction: False leaves sqrt(1 - b2^t) / (1 - b1^t) out of a.
    """

    learning_rate: Hyperparameter = number(default=1.0)
    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    beta3: Hyperparameter | None = number(default=None, within="[0, 1)", optional=True)
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    estim_lr0: Hyperparameter = number(default=1e-6, within="(0, inf)")
    estim_lr_coef: Hyperparameter = number(default=1.0, within="[0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    safeguard_warmup: bool = flag(default=False)
    weight_decay_mask: Any = static(default=None, convert=as_mask)
    growth_rate: Hyperparameter | None = number(default=None, within="[1, inf)", optional=True, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        (estim_lr0,) = at(start(), self.estim_lr0)
        first = ProdigyState(
            exp_avg=leafwise.zeros(params),
            exp_avg_sq=leafwise.zeros(params, real=True),
            grad_sum=leafwise.zeros(params),
            params0=geometry.copied(params),
            estim_lr=geometry.scalar(params, estim_lr0),
            numerator_weighted=geometry.scalar(params, 0),
            count=start(),
        )
        return first if self.growth_rate is None else ProdigyWithGrowthState(*first, geometry.scalar(params, estim_lr0))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        rate, b1, b2, eps = at(state.count, self.learning_rate, self.b1, self.b2, self.eps)
        d0, coefficient, decay = at(state.count, self.estim_lr0, self.estim_lr_coef, self.weight_decay)
        (b3,) = (length(b2),) if self.beta3 is None else at(state.count, self.beta3)
        count, d = tick(state.count), state.estim_lr
        step = d * rate * (length(ema_mass(b2, count)) / ema_mass(b1, count) if self.bias_correction else 1)
        weight = d / d0 * (d if self.safeguard_warmup else step)
        record(extra, learning_rate=lambda: d * rate)

        summed = lambda g, s: b3 * s + weight * g
        toward = lambda g, p0, p: geometry.product(g, p0 - p)
        travelled = geometry.total(geometry.sums(toward, updates, state.params0, params))
        size = geometry.total(geometry.sums(lambda g, s: jnp.abs(summed(g, s)), updates, state.grad_sum))
        r = b3 * state.numerator_weighted + d / d0 * step * travelled
        estimate = coefficient * geometry.ratio(r, size)
        new_d, largest = jnp.maximum(d, estimate), []
        if self.growth_rate is not None:
            (growth,) = at(state.count, self.growth_rate)
            largest = [jnp.maximum(state.largest_estim_lr, estimate)]
            # the first estimate above d0 is where it starts from
            new_d = jnp.minimum(largest[0], jnp.where(d == d0, new_d, d) * growth)

        def leaf(g, mu, nu, s, p, decays):
            mu, nu = ema(mu, d * g, b1), ema(nu, abs_sq(d * g), b2)
            u = jnp.conj(mu) / (root(nu) + new_d * eps)
            return -step * (u + decay * p if decays else u), mu, nu, summed(g, s)

        decays = chosen(self.weight_decay_mask, params, self.name)
        slots = state.exp_avg, state.exp_avg_sq, state.grad_sum
        updates, mu, nu, s = leafwise.unzip_map(leaf, updates, *slots, params, decays, outputs=4)
        return updates, type(state)(mu, nu, s, state.params0, new_d, r, count, *largest)


def prodigy(
    learning_rate: Hyperparameter = 1.0,
    betas: tuple[Hyperparameter, Hyperparameter] = (0.9, 0.999),
    beta3: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-8,
    estim_lr0: Hyperparameter = 1e-6,
    estim_lr_coef: Hyperparameter = 1.0,
    weight_decay: Hyperparameter = 0.0,
    safeguard_warmup: bool = False,
    weight_decay_mask: Any = None,
    *,
    growth_rate: Hyperparameter | None = None,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW whose learning rate is an estimate, from below, of the distance from the first parameters to the solution.

        a = d learning_rate sqrt(1 - b2^t) / (1 - b1^t)
        mu = b1 mu + (1 - b1) d g,        nu = b2 nu + (1 - b2) |d g|^2         from zero
        r = beta3 r + a d / d0 <g, p0 - p>
        s = beta3 s + a d / d0 g                    d for a with safeguard_warmup
        d' = max(d, estim_lr_coef r / sum |s|)      d where s is 0;  <.,.> and the sum are over all leaves
        d' = min(growth_rate d, the largest of all estimates)      with a growth_rate; d0 may jump to the first estimate
        u = -a (mu / (sqrt(nu) + d' eps) + weight_decay p)

    d starts at d0, `estim_lr0`, and never falls. Use a schedule that decays, such as the cosine, with peak 1.

    Args:
      betas: (b1, b2). Other arguments: `scale_by_prodigy`.

    State: 16 bytes per float32 parameter and 12. Reads: params.
    Source: Mishchenko, Defazio, Prodigy: an expeditiously adaptive parameter-free learner, ICML 2024, Algorithm 4
      (arXiv:2306.06101), with the bias correction, beta3 and the safeguard of the authors' code.
    Differs from Optax: d and r are float32 or wider whatever the parameters are, and the first parameters a copy; where
      gradients have been zero d stays, instead of becoming NaN; of complex g, nu holds |d g|^2.
    """
    b1, b2 = pair("prodigy", betas)
    args = (learning_rate, b1, b2, beta3, eps, estim_lr0, estim_lr_coef, weight_decay)
    options = {"growth_rate": growth_rate, "bias_correction": bias_correction}
    return scale_by_prodigy(*args, safeguard_warmup, weight_decay_mask, **options)


def pair(owner: str, betas: Any) -> tuple[Any, Any]:
    """(b1, b2), or an error that names the argument."""
    try:
        b1, b2 = betas
    except (TypeError, ValueError):
        raise TypeError(f"`{owner}`: betas must be a pair (b1, b2), got {betas!r}.") from None
    return b1, b2

"""AdaBelief (Zhuang et al., 2020): Adam that divides by the gradient's surprise instead of its size."""

from typing import Any, NamedTuple

from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root, unbiased_mean
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, state


@state
class ScaleByBeliefState(NamedTuple):
    """State of `scale_by_belief`."""

    count: Array  # int32 scalar: updates made so far
    mu: Params  # running mean of g, float32 or wider
    nu: Params  # running mean of |g - mu|^2, plus eps_root per update, real, float32 or wider


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

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Zhuang et al., AdaBelief optimizer, NeurIPS 2020, Algorithm 2 (arXiv:2010.07468).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-16, within="[0, inf)")
    eps_root: Hyperparameter = number(default=1e-16, within="[0, inf)")
    nesterov: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return ScaleByBeliefState(start(), mu=leafwise.zeros(params), nu=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        mean, scale2 = unbiased_mean(b1, count, self.nesterov), 1 / ema_mass(b2, count)

        def leaf(g, mu, nu):
            mu = ema(mu, g, b1)
            nu = b2 * nu + ((1 - b2) * abs_sq(g - mu) + eps_root)
            return mean(mu, g) / (root(nu * scale2) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByBeliefState(count, mu, nu)


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
) -> GradientTransformation:
    """AdaBelief: long steps where the gradient is as expected, short ones where it is not. Others: `scale_by_belief`.

    Args:
      learning_rate: in units of the parameters.
      weight_decay: decoupled, as in `adamw`; None for none.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.
    """
    decay = [] if weight_decay is None else [add_decayed_weights(weight_decay, weight_decay_mask)]
    return chain(
        scale_by_belief(b1, b2, eps, eps_root, nesterov=nesterov), *decay, scale_by_learning_rate(learning_rate)
    )

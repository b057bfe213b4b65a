"""ACProp (Zhuang et al., 2021): the gradient over its surprise so far, this gradient's own not counted."""

from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.optimizers.adabelief import ScaleByBeliefState, scale_by_belief
from gradtx.optimizers.radam import rectification
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number


@transformation
class scale_by_acprop(GradientTransformation):
    """Divides the gradient by the root of the running squared distance of those before it from their running mean.

        v = nu / (1 - b2^(t-1))           nu before this update; v = 1 where that is 0, as at the first update
        u = g / (sqrt(v) + eps)
        nu = b2 nu + (1 - b2) |g - mu|^2 + eps_root,        mu = b1 mu + (1 - b1) g         from zero

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: added into nu at every update, in squared units of the gradient. Not negative.
      momentum_update: step along mu after this update, over 1 - b1^t, instead of g.
      rectify: u = r g / (sqrt(nu / (1 - b2^t)) + eps), with the r of `scale_by_radam`, and along mu, over 1 - b1^t,
        while its rho is below 5, as at the first update.
      new_mean: |g - mu|^2 of mu after this update, which is b1^2 times that of mu before; and where v is 1, u = g
        without eps.

    State: 8 bytes per float32 parameter, a `ScaleByBeliefState`. Reads: gradients only.
    Source: Zhuang et al., Momentum centering and asynchronous update for adaptive gradient methods, NeurIPS 2021,
      Algorithm 2 (arXiv:2110.05454), there with `new_mean`, and so in their code, which also rectifies by default; when
      it does, eps is beside the uncorrected root: eps / sqrt(1 - b2^t) here. Without these it is Optax's.
    Differs from Optax: where nu is 0 later on, which needs eps_root = 0, v is 1 too, instead of 0.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-16, within="[0, inf)")
    eps_root: Hyperparameter = number(default=1e-16, within="[0, inf)")
    momentum_update: bool = flag(default=False, kw_only=True)
    rectify: bool = flag(default=False, kw_only=True)
    new_mean: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return scale_by_belief().bare_init(params)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        seen = count if self.rectify else jnp.maximum(state.count, 1)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, seen)
        trusted, r = rectification(b2, count, 5.0)

        def leaf(g, mu, nu):
            divisor = jnp.where(nu > 0, root(nu * scale2) + eps, 1 if self.new_mean else 1 + eps)
            new_mu = ema(mu, g, b1)
            u = (new_mu * scale1 if self.momentum_update else g) / divisor
            if self.rectify:
                u = jnp.where(trusted & (state.count > 0), r * u, new_mu * scale1)
            surprise = abs_sq(g - (new_mu if self.new_mean else mu))
            return u, new_mu, b2 * nu + ((1 - b2) * surprise + eps_root)

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByBeliefState(count, mu, nu)


def acprop(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-16,
    eps_root: Hyperparameter = 1e-16,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    momentum_update: bool = False,
    rectify: bool = False,
    new_mean: bool = False,
) -> GradientTransformation:
    """AdaBelief without momentum in the step, and with a divisor from the past. Other arguments: `scale_by_acprop`.

    Args:
      learning_rate: in units of the parameters. The first step is that of `sgd`.
      weight_decay: decoupled, as in `adamw`. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    """
    options = {"momentum_update": momentum_update, "rectify": rectify, "new_mean": new_mean}
    return chain(
        scale_by_acprop(b1, b2, eps, eps_root, **options),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

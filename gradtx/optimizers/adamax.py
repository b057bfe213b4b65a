"""Adamax (Kingma & Ba, 2015): Adam with the largest recent gradient in place of the root of the mean square."""

from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import ema, ema_mass
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number


@transformation
class scale_by_adamax(GradientTransformation):
    """Divides the gradient's running mean by its running maximum.

        mu = b1 mu + (1 - b1) g,          nu = max(b2 nu, |g| + eps)           from zero
        u = mu / (1 - b1^t) / nu

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: in units of the gradient; keeps nu from 0. Not negative.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: Kingma, Ba, Adam, ICLR 2015, Algorithm 2 (arXiv:1412.6980); eps is Optax's and PyTorch's.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def init(self, params):
        return ScaleByAdamState(start(), mu=leafwise.zeros(params), nu=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps = at(state.count, self.b1, self.b2, self.eps)
        count = tick(state.count)
        scale1 = 1 / ema_mass(b1, count)

        def leaf(g, mu, nu):
            mu, nu = ema(mu, g, b1), jnp.maximum(b2 * nu, jnp.abs(g) + eps)
            return jnp.where(nu > 0, mu * scale1 / jnp.where(nu > 0, nu, 1), 0), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def adamax(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
) -> GradientTransformation:
    """Adamax: no coordinate moves by more than about the learning rate. Other arguments: `scale_by_adamax`.

    Args:
      learning_rate: in units of the parameters.
    """
    return chain(scale_by_adamax(b1, b2, eps), scale_by_learning_rate(learning_rate))


def adamaxw(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
) -> GradientTransformation:
    """Adamax with decoupled weight decay. Other arguments: `scale_by_adamax`, `adamw`. Reads: params."""
    return chain(
        scale_by_adamax(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )

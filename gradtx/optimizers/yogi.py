"""Yogi (Zaheer et al., 2018): Adam whose second moment falls by no more than a share of the squared gradient."""

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number


@transformation
class scale_by_yogi(GradientTransformation):
    """Divides the gradient's running mean by the root of a second moment that changes by |g|^2 at most.

        mu = b1 mu + (1 - b1) g,          nu = nu - (1 - b2) sign(nu - |g|^2) |g|^2
        u = mu / (1 - b1^t) / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Adam's nu falls by a share of itself, so after a rare large gradient its rates soon grow, whatever comes; this one
    falls by a share of what comes.

    Args:
      b1: decay of mu, in [0, 1).
      b2: nu moves by (1 - b2) |g|^2 per update; in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: inside the root, in squared units of the gradient. Not negative.
      initial_accumulator_value: mu and nu at the start, in units of the gradient and in their squares. Not negative. A
        schedule is read at 0.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: Zaheer, Reddi, Sachan, Kale, Kumar, Adaptive methods for nonconvex optimization, NeurIPS 2018, Algorithm 2.
      As in Optax both moments start from the initial value and are divided by 1 - b^t; the paper's mu starts from 0,
      and it divides neither.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-3, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    initial_accumulator_value: Hyperparameter = number(default=1e-6, within="[0, inf)")

    def init(self, params):
        (initial,) = at(start(), self.initial_accumulator_value)
        mu, nu = leafwise.full(params, initial), leafwise.full(params, initial, real=True)
        return ScaleByAdamState(start(), mu, nu)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, mu, nu):
            mu, square = ema(mu, g, b1), abs_sq(g)
            nu = nu - (1 - b2) * jnp.sign(nu - square) * square
            return mu * scale1 / (root(nu * scale2 + eps_root) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def yogi(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-3,
) -> GradientTransformation:
    """Yogi: Adam whose rates do not jump up after a rare large gradient. Other arguments: `scale_by_yogi`.

        p <- p - learning_rate m / (sqrt(v) + eps)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by at most about this much.
    """
    return chain(scale_by_yogi(b1, b2, eps), scale_by_learning_rate(learning_rate))

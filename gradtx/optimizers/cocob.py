"""COCOB (Orabona, Tommasi, 2017): coin betting, in which each coordinate stakes a part of what it has won."""

from typing import Any, NamedTuple

import jax.numpy as jnp

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, now, start
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, state


@state
class COCOBState(NamedTuple):
    """State of `scale_by_cocob`."""

    init_particles: Params  # the parameters before the first update, as they were stored
    cumulative_gradients: Params  # C, minus the sum of g, float32 or wider
    scale: Params  # L, largest |g|, real, float32 or wider
    subgradients: Params  # G, sum of |g|, real, float32 or wider
    reward: Params  # R, what the bets have won, real, float32 or wider


@transformation
class scale_by_cocob(GradientTransformation):
    """Turns gradients into steps to where a gambler stands who bets on their signs.

        L = max(L, |g|),    G = G + |g|,    R = max(R - g (p - p0), 0),    C = C - g        L from eps, others from 0
        u = p0 - p + C / L (L + R) / max(G + L, alpha L)                  p0 - p where L is 0

    These are whole descent steps: no learning rate follows.

    Args:
      alpha: the least part of the wealth that is kept back, in units of 1 / L. Not negative.
      eps: L at the start, in units of the gradient. Not negative. A schedule is read at 0.

    State: 20 bytes per float32 parameter. Reads: params.
    Source: Orabona, Tommasi, Training deep networks without learning rates through coin betting, NeurIPS 2017,
      Algorithm 2 (arXiv:1705.07795).
    Differs from Optax: the sums are float32 or wider whatever the parameters are, and the first parameters a copy; eps
      may be 0, or too small to square.
    """

    alpha: Hyperparameter = number(default=100.0, within="[0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def init(self, params):
        (eps,) = at(start(), self.eps)
        return COCOBState(
            init_particles=geometry.copied(params),
            cumulative_gradients=leafwise.zeros(params),
            scale=leafwise.full(params, eps, real=True),
            subgradients=leafwise.zeros(params, real=True),
            reward=leafwise.zeros(params, real=True),
        )

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (alpha,) = at(now(), self.alpha)

        def leaf(g, p0, total, scale, size, reward, p):
            scale, size = jnp.maximum(scale, jnp.abs(g)), size + jnp.abs(g)
            reward, total = jnp.maximum(reward - geometry.product(g, p - p0), 0), total - g
            wealth = geometry.ratio(scale + reward, jnp.maximum(size + scale, alpha * scale))
            return p0 + geometry.ratio(jnp.conj(total), scale) * wealth - p, p0, total, scale, size, reward

        updates, _, *slots = leafwise.unzip_map(leaf, updates, *state, params, outputs=6)
        return updates, COCOBState(state.init_particles, *slots)


def cocob(
    learning_rate: Hyperparameter = 1.0,
    alpha: Hyperparameter = 100.0,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Coin betting: no learning rate; a coordinate moves fast while its gradients agree. Others: `scale_by_cocob`.

    Args:
      learning_rate: a factor on the gradients, before the bets. A constant one changes little: bets have no scale.
      weight_decay: added to the gradient, weight_decay p. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
    """
    return chain(
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate, flip_sign=False),
        scale_by_cocob(alpha, eps),
    )

"""diffGrad (Dubey et al., 2020): Adam that slows down where the gradient stays as it is."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import number, state


@state
class ScaleByDiffgradState(NamedTuple):
    """State of `scale_by_diffgrad`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, float32 or wider
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    last: Means  # the last gradient, float32 or wider


@transformation
class scale_by_diffgrad(GradientTransformation):
    """Multiplies Adam's direction by a friction, from a half where the gradient stays to 1 where it changes.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = sigmoid(|g - last g|) m / (sqrt(v) + eps)                           the last g is 0 at the first update

    It knows the gradient's size: where gradients are small beside 1, it is half of Adam.

    Args:
      b1, b2, eps: as in `scale_by_adam`.

    State: 12 bytes per float32 parameter. Reads: gradients only.
    Source: Dubey, Chakraborty, Roy, Mukherjee, Singh, Chaudhuri, diffGrad, 2020, section III (arXiv:1909.11015).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def init(self, params):
        mu, last = leafwise.zeros(params), leafwise.zeros(params)
        return ScaleByDiffgradState(start(), mu, leafwise.zeros(params, real=True), last)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps = at(state.count, self.b1, self.b2, self.eps)
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, mu, nu, last):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            friction = jax.nn.sigmoid(jnp.abs(g - last))
            return mu * scale1 * (friction / (root(nu * scale2) + eps)), mu, nu, jnp.copy(g)  # g may be donated

        updates, *slots = leafwise.unzip_map(leaf, updates, state.mu, state.nu, state.last, outputs=4)
        return updates, ScaleByDiffgradState(count, *slots)


def diffgrad(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """diffGrad: Adam with friction where the gradient does not change. Other arguments: `scale_by_diffgrad`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters; each coordinate moves by half to all of it.
      weight_decay: decoupled, as in `adamw`. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_diffgrad(b1, b2, eps), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )

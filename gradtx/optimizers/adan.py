"""Adan (Xie et al., 2022): Adam with Nesterov momentum from the differences of gradients."""

from typing import Any, NamedTuple

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
class ScaleByAdanState(NamedTuple):
    """State of `scale_by_adan`."""

    m: Means  # running mean of g, float32 or wider
    v: Means  # running mean of d, float32 or wider
    n: Squares  # running mean of |g + w d|^2, real, float32 or wider
    g: Means  # the last gradient, float32 or wider
    t: Array  # int32 scalar: updates made so far


@transformation
class scale_by_adan(GradientTransformation):
    """Divides the running means of the gradient and of its differences by a running root mean square.

        d = g - last g                           0 at the first update
        m = b1 m + (1 - b1) g,   v = b2 v + (1 - b2) d,   n = b3 n + (1 - b3) |g + w d|^2          from zero
        u = (m / (1 - b1^t) + w v / (1 - b2^t)) / (sqrt(n / (1 - b3^t) + eps_root) + eps)

    Args:
      b1, b2, b3: decays of m, v and n, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: inside the root, in squared units of the gradient. Not negative.
      difference_weight: w, how far a difference looks ahead; any finite number. None is 1 - b2, as in Optax. The
        paper's is b2: pass 0.92.

    State: 16 bytes per float32 parameter. Reads: gradients only.
    Source: Xie, Zhou, Li, Lin, Yan, Adan, 2022, Algorithm 1 (arXiv:2208.06677). Its betas are 1 minus those here: its
      1 - beta2, the weight of a difference, is b2.
    """

    b1: Hyperparameter = number(default=0.98, within="[0, 1)")
    b2: Hyperparameter = number(default=0.92, within="[0, 1)")
    b3: Hyperparameter = number(default=0.99, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    difference_weight: Hyperparameter | None = number(default=None, optional=True, kw_only=True)

    def init(self, params):
        m, v, g = (leafwise.zeros(params) for _ in range(3))
        return ScaleByAdanState(m, v, leafwise.zeros(params, real=True), g, start())

    def update(self, updates, state, params=None, **extra):
        b1, b2, b3, eps, eps_root = at(state.t, self.b1, self.b2, self.b3, self.eps, self.eps_root)
        (weight,) = (1 - b2,) if self.difference_weight is None else at(state.t, self.difference_weight)
        t = tick(state.t)
        scale1, scale2, scale3 = 1 / ema_mass(b1, t), weight / ema_mass(b2, t), 1 / ema_mass(b3, t)

        def leaf(g, m, v, n, last):
            d = jnp.where(state.t == 0, 0, g - last)
            m, v, n = ema(m, g, b1), ema(v, d, b2), ema(n, abs_sq(g + weight * d), b3)
            u = (m * scale1 + v * scale2) / (root(n * scale3 + eps_root) + eps)
            return u, m, v, n, jnp.copy(g)  # the caller's gradient may be donated

        rows = updates, state.m, state.v, state.n, state.g
        updates, m, v, n, g = leafwise.unzip_map(leaf, *rows, outputs=5)
        return updates, ScaleByAdanState(m, v, n, g, t)


def adan(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.98,
    b2: Hyperparameter = 0.92,
    b3: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    difference_weight: Hyperparameter | None = None,
) -> GradientTransformation:
    """Adan: Adam that looks ahead along the change of the gradient. Other arguments: `scale_by_adan`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: decoupled, as in `adamw`; the paper divides by 1 + learning_rate weight_decay instead.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_adan(b1, b2, b3, eps, eps_root, difference_weight=difference_weight),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

"""Simplified AdEMAMix (Morwani et al., 2025): one slow sum of gradients, and the newest one added to it."""

from typing import Any, NamedTuple

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
class ScaleBySimplifiedAdEMAMixState(NamedTuple):
    """State of `scale_by_simplified_ademamix`."""

    t: Array  # int32 scalar: updates made so far
    m: Means  # decayed sum of g, float32 or wider
    n: Squares  # running mean of |g|^2, real, float32 or wider


@transformation
class scale_by_simplified_ademamix(GradientTransformation):
    """Divides the gradient's decayed sum, plus the newest gradient, by the root of its running square.

        m = b1 m + g,        n = b2 n + (1 - b2) |g|^2        from zero
        v = n / (1 - b2^t)
        u = (m + alpha g) / (sqrt(v + eps_root) + eps)

    Args:
      b1: decay of m, in [0, 1]; m is a sum, so a constant gradient is amplified 1 / (1 - b1) times.
      b2: decay of n, in [0, 1).
      alpha: weight of the newest gradient, beyond its part in m. Not negative.
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: inside the root, in squared units of the gradient. Not negative.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Morwani, Vyas, Zhang, Kakade, Connections between schedule-free optimizers, AdEMAMix, and accelerated SGD
      variants, 2025, Algorithm 1 (arXiv:2502.02431).
    Differs from Optax: of complex g, n holds |g|^2, not g^2.
    """

    b1: Hyperparameter = number(default=0.99, within="[0, 1]")
    b2: Hyperparameter = number(default=0.95, within="[0, 1)")
    alpha: Hyperparameter = number(default=0.0, within="[0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")

    def init(self, params):
        return ScaleBySimplifiedAdEMAMixState(start(), m=leafwise.zeros(params), n=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, alpha, eps, eps_root = at(state.t, self.b1, self.b2, self.alpha, self.eps, self.eps_root)
        t = tick(state.t)
        scale2 = 1 / ema_mass(b2, t)

        def leaf(g, m, n):
            m, n = b1 * m + g, ema(n, abs_sq(g), b2)
            return (m + alpha * g) / (root(n * scale2 + eps_root) + eps), m, n

        updates, m, n = leafwise.unzip_map(leaf, updates, state.m, state.n, outputs=3)
        return updates, ScaleBySimplifiedAdEMAMixState(t, m, n)


def simplified_ademamix(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.99,
    b2: Hyperparameter = 0.95,
    alpha: Hyperparameter = 0.0,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """AdamW with a sum instead of a mean, and a weight for the newest gradient. Others: `scale_by_simplified_ademamix`.

    Args:
      learning_rate: in units of the parameters; with a constant gradient a coordinate moves by 1 / (1 - b1) + alpha
        times this.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_simplified_ademamix(b1, b2, alpha, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

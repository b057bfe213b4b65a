"""AdaBound (Luo et al., 2019): Adam whose rates per coordinate narrow to one, that of gradient descent."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state


@state
class ScaleByAdaboundState(NamedTuple):
    """State of `scale_by_adabound`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, float32 or wider
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    nu_max: Squares  # if `amsbound`, the largest nu so far, real, float32 or wider; else None


@transformation
class scale_by_adabound(GradientTransformation):
    """Multiplies the gradient's running mean by Adam's rate, kept between two bounds that close in with time.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        e = 1 / (1 - b1^t) / (sqrt(nu / (1 - b2^t)) + eps)
        u = min(max(e, final_scale (1 - 1 / (gamma t + 1))), final_scale (1 + 1 / (gamma t))) mu

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Positive.
      final_scale: what the rates come to, as a multiple of the learning rate. Positive.
      gamma: how fast: after 1 / gamma updates the bounds are a half and twice of it. Positive.
      amsbound: divide by the largest nu so far.
      bias_correction: False leaves out 1 - b1^t and 1 - b2^t, as the paper's algorithm; its code has them.

    State: 8 bytes per float32 parameter, 4 more with `amsbound`. Reads: gradients only.
    Source: Luo, Xiong, Liu, Sun, Adaptive gradient methods with dynamic bound of learning rate, ICLR 2019, Algorithms 2
      and 3 (arXiv:1902.09843), without their rate's 1 / sqrt(t), as in their code.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="(0, inf)")
    final_scale: Hyperparameter = number(default=100.0, within="(0, inf)")
    gamma: Hyperparameter = number(default=1e-3, within="(0, inf)")
    amsbound: bool = flag(default=False, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        nu_max = leafwise.zeros(params, real=True) if self.amsbound else leafwise.choose(lambda p: None, params)
        return ScaleByAdaboundState(start(), leafwise.zeros(params), leafwise.zeros(params, real=True), nu_max)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, final = at(state.count, self.b1, self.b2, self.eps, self.final_scale)
        (gamma,) = at(state.count, self.gamma)
        count = tick(state.count)
        scale1, scale2 = (1 / ema_mass(b, count) if self.bias_correction else 1 for b in (b1, b2))
        passed = gamma * as_float(count)
        lower, upper = final * (1 - 1 / (passed + 1)), final * (1 + 1 / passed)

        def leaf(g, mu, nu, nu_max):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            nu_max = jnp.maximum(nu_max, nu) if self.amsbound else nu_max
            rate = scale1 / (root((nu_max if self.amsbound else nu) * scale2) + eps)
            return mu * jnp.clip(rate, lower, upper), mu, nu, nu_max

        updates, *slots = leafwise.unzip_map(leaf, updates, state.mu, state.nu, state.nu_max, outputs=4)
        return updates, ScaleByAdaboundState(count, *slots)


def adabound(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    final_scale: Hyperparameter = 100.0,
    gamma: Hyperparameter = 1e-3,
    *,
    amsbound: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdaBound: Adam that becomes gradient descent with momentum. Other arguments: `scale_by_adabound`.

        p <- p - learning_rate u

    Args:
      learning_rate: Adam's; gradient descent's in the end is final_scale times as large.
    """
    direction = scale_by_adabound(b1, b2, eps, final_scale, gamma, amsbound=amsbound, bias_correction=bias_correction)
    return chain(direction, scale_by_learning_rate(learning_rate))

"""AdaMod (Ding et al., 2019): Adam whose rate per coordinate is at most its own running mean."""

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
from gradtx.value import flag, number, state


@state
class ScaleByAdamodState(NamedTuple):
    """State of `scale_by_adamod`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, float32 or wider
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    rate: Squares  # running mean of the rates from zero, real, float32 or wider


@transformation
class scale_by_adamod(GradientTransformation):
    """Multiplies the gradient's running mean by Adam's rate or by the running mean of that, whichever is smaller.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        e = 1 / (sqrt(nu / (1 - b2^t)) + eps)
        s = b3 s + (1 - b3) e                                                   from zero
        u = min(e, s) mu / (1 - b1^t)

    s has the bias of its start: it is a warmup, of about 1 / (1 - b3) updates.

    Args:
      b1, b2, eps: as in `scale_by_adam`. eps is positive: where nu is 0, e is 1 / eps.
      b3: decay of s, in [0, 1); 0 is Adam.
      corrected_rate: divide e by 1 - b1^t, and not mu, as the authors' code: so s keeps the large first rates.

    State: 12 bytes per float32 parameter. Reads: gradients only.
    Source: Ding, Ren, Luo, Sun, An adaptive and momental bound method for stochastic learning, 2019, Algorithm 1
      (arXiv:1910.12249). The learning rate, which is in e there, multiplies u here: the same, if it is constant.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    b3: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="(0, inf)")
    corrected_rate: bool = flag(default=False, kw_only=True)

    def init(self, params):
        nu, rate = leafwise.zeros(params, real=True), leafwise.zeros(params, real=True)
        return ScaleByAdamodState(start(), leafwise.zeros(params), nu, rate)

    def update(self, updates, state, params=None, **extra):
        b1, b2, b3, eps = at(state.count, self.b1, self.b2, self.b3, self.eps)
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)
        of_rate, of_mean = (scale1, 1) if self.corrected_rate else (1, scale1)

        def leaf(g, mu, nu, s):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            rate = of_rate / (root(nu * scale2) + eps)
            s = ema(s, rate, b3)
            return mu * (jnp.minimum(rate, s) * of_mean), mu, nu, s

        updates, *slots = leafwise.unzip_map(leaf, updates, state.mu, state.nu, state.rate, outputs=4)
        return updates, ScaleByAdamodState(count, *slots)


def adamod(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    b3: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    corrected_rate: bool = False,
) -> GradientTransformation:
    """AdaMod: Adam that warms up by itself, and whose rates do not jump. Other arguments: `scale_by_adamod`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters; each coordinate moves by at most about this much.
      weight_decay: decoupled, as in `adamw`. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_adamod(b1, b2, b3, eps, corrected_rate=corrected_rate),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

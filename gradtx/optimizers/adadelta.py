"""Adadelta (Zeiler, 2012): steps in the parameters' units, from the ratio of two running averages."""

from typing import Any, NamedTuple

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, root
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Squares
from gradtx.value import number, state


@state
class ScaleByAdaDeltaState(NamedTuple):
    """State of `scale_by_adadelta`."""

    e_g: Squares  # running mean of |g|^2, real, float32 or wider
    e_x: Squares  # running mean of |u|^2, real, float32 or wider


@transformation
class scale_by_adadelta(GradientTransformation):
    """Scales the gradient by the running size of its own updates over the gradient's running size.

        e_g = rho e_g + (1 - rho) |g|^2                         from zero
        u = g sqrt(e_x + eps) / sqrt(e_g + eps)
        e_x = rho e_x + (1 - rho) |u|^2                         from zero

    u is computed of the new averages, g sqrt(e_x + rho eps) / sqrt(rho (e_g + eps) + (1 - rho) |g|^2), which is the
    same: so the old ones need not be kept.

    Args:
      rho: decay of both averages, in [0, 1).
      eps: added to both, in squared units of the parameters and of the gradient. Not negative. The first updates are
        about sqrt(eps / (1 - rho)); at 0 nothing would ever move.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Zeiler, ADADELTA, an adaptive learning rate method, 2012, Algorithm 1 (arXiv:1212.5701).
    """

    rho: Hyperparameter = number(default=0.9, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")

    def init(self, params):
        return ScaleByAdaDeltaState(leafwise.zeros(params, real=True), leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        rho, eps = at(now(), self.rho, self.eps)

        def leaf(g, e_g, e_x):
            square = abs_sq(g)
            e_g = ema(e_g, square, rho)
            e_x = ema(e_x, abs_sq(g * (root(e_x + eps) / root(e_g + eps))), rho)
            return g * (root(e_x + rho * eps) / root(rho * (e_g + eps) + (1 - rho) * square)), e_g, e_x

        updates, e_g, e_x = leafwise.unzip_map(leaf, updates, state.e_g, state.e_x, outputs=3)
        return updates, ScaleByAdaDeltaState(e_g, e_x)


def adadelta(
    learning_rate: Hyperparameter | None = None,
    rho: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = None,
) -> GradientTransformation:
    """Adadelta: steps as long as those before, by the change of the gradient's size. Others: `scale_by_adadelta`.

        g = g + weight_decay p;  p <- p - learning_rate g sqrt(e_x + eps) / sqrt(e_g + eps)

    Args:
      learning_rate: a factor of the paper's step; 1 is the paper's. None, the default as in Optax, leaves out the step:
        the updates then point along the gradient, uphill.
      weight_decay: added to the gradient before it is scaled. Not negative.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_adadelta(rho, eps),
        scale_by_learning_rate(learning_rate),
    )

"""Scion (Pethick et al., 2025): steps of a fixed size in the norm of each layer, and weights that stay in its ball."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms import scale as scaling
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.linear_minimization import scale_by_lmo
from gradtx.transforms.momentum import ema
from gradtx.transforms.orthogonalize import newton_schulz

JORDAN = newton_schulz()


def scion(
    learning_rate: Hyperparameter,
    beta: Hyperparameter = 0.9,
    norm: str = "auto",
    scale: Hyperparameter = 1.0,
    *,
    constrained: bool = True,
    normalized: bool | None = None,
    at_least_one: bool = False,
    eps: Hyperparameter = 1e-8,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    orthogonalizer: Any = JORDAN,
) -> GradientTransformation:
    """Momentum, of which the steepest direction under each layer's norm is the step. Other arguments: `scale_by_lmo`.

        mu = beta mu + (1 - beta) g                                             from zero
        u = argmax <mu, u>,  |u| <= 1                                           `scale_by_lmo`
        p <- (1 - learning_rate) p - learning_rate scale u                      p - learning_rate scale u   if free

    This is the method of Frank and Wolfe: the parameters are averages of points of the norm's ball of radius `scale`,
    so they stay in it where they start in it and the learning rate is at most 1. It is a decay of 1 / scale beside a
    learning rate of learning_rate scale.

    Norms and radii of several kinds of layers are a partition:

        groups = labels.groups({"ends": role("embedding", "head"), "rest": ...})
        partition({"rest": scion(2**-12, scale=50.0), "ends": scion(2**-12, norm="sign", scale=3000.0)}, groups)

    Args:
      learning_rate: the share of the way to the ball's surface, in [0, 1].
      beta: decay of mu: 1 - alpha in the source, 1 - momentum in its code, where it is 0 by default.
      scale: the radius, in units of the parameters as the norm measures them.
      constrained: False leaves out the shrinking of p: steps of one size, in no ball.
      mu_dtype: storage of mu; None means float32 or wider.

    State: 4 bytes per float32 parameter. Reads: params, if constrained.
    Source: Pethick et al., Training deep learning models with norm-constrained LMOs, ICML 2025, Algorithms 1 and 2
      (arXiv:2502.07529). The authors' ScionLight keeps mu / (1 - beta) where the gradient is: the same steps, but for
      each eps, which is 1 / (1 - beta) times as large there; and the same memory, since a gradient of JAX is no state.
      Their recipe for the first parameters, orthogonal ones on the ball's surface, is left to the model.
    """
    link = scale_by_lmo(
        norm,
        normalized=normalized,
        at_least_one=at_least_one,
        eps=eps,
        weight_dimension_numbers=weight_dimension_numbers,
        orthogonalizer=orthogonalizer,
    )
    shrink = [add_decayed_weights(1.0)] if constrained else []
    momentum = ema(beta, debias=False, accumulator_dtype=mu_dtype)
    return chain(momentum, link, scaling.scale(scale), *shrink, scaling.scale_by_learning_rate(learning_rate))

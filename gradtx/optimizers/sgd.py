"""Stochastic gradient descent, with or without momentum."""

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms.momentum import trace
from gradtx.transforms.scale import scale_by_learning_rate


def sgd(
    learning_rate: Hyperparameter,
    momentum: Hyperparameter | None = None,
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Steps against the gradient, or against its decayed sum.

        p <- p - learning_rate g                    momentum None
        v = momentum v + g;  p <- p - learning_rate v
        v = momentum v + g;  p <- p - learning_rate (g + momentum v)      nesterov

    The other ways to write momentum are in `gradtx.momentum`.

    Args:
      learning_rate: in units of the parameters per unit of gradient.
      momentum: in [0, 1), usually 0.9; None for none.
      nesterov: look one step ahead; needs momentum.
      accumulator_dtype: storage of v; None means float32 or wider.

    State: 4 bytes per float32 parameter, none without momentum. Reads: gradients only.
    Source: Robbins, Monro, A stochastic approximation method, 1951; for momentum see `trace`.
    """
    if momentum is None:
        if nesterov:
            raise ValueError("`sgd`: nesterov needs a momentum, got momentum=None.")
        return chain(scale_by_learning_rate(learning_rate))
    return chain(trace(momentum, nesterov, accumulator_dtype), scale_by_learning_rate(learning_rate))

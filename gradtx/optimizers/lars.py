"""LARS (You, Gitman, Ginsburg, 2017): momentum with every layer's step in proportion to its parameters."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.combine.masking import masked
from gradtx.core import GradientTransformation
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import trace
from gradtx.transforms.normalize import scale_by_trust_ratio
from gradtx.transforms.scale import scale_by_learning_rate


def lars(
    learning_rate: Hyperparameter,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: Hyperparameter = 0.001,
    eps: Hyperparameter = 0.0,
    trust_ratio_mask: Any = True,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
) -> GradientTransformation:
    """LARS: SGD with momentum whose gradient is scaled leaf by leaf to a fraction of the parameter's norm.

        r = g + weight_decay p
        v = momentum v - learning_rate r trust_coefficient |p| / (|r| + eps);   p <- p + v

    Args:
      learning_rate: multiplies each leaf's step before the momentum.
      weight_decay: L2 regularization, before the ratio. Not negative.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`. Usually not biases and norms.
      trust_coefficient: each leaf's step as a fraction of the leaf's norm. Positive.
      eps: added to the norm of r. Not negative.
      trust_ratio_mask: which leaves are scaled. Usually not biases and norms.
      momentum: in [0, 1).
      nesterov: look one step ahead.

    State: 4 bytes per float32 parameter. Reads: params.
    Source: You, Gitman, Ginsburg, Large batch training of convolutional networks, 2017, Algorithm 1 (arXiv:1708.03888).
      The ratio's denominator is |g + weight_decay p|, as in Optax, where the paper has |g| + weight_decay |p|.
    """
    return chain(
        add_decayed_weights(weight_decay, weight_decay_mask),
        masked(scale_by_trust_ratio(trust_coefficient=trust_coefficient, eps=eps), trust_ratio_mask),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )

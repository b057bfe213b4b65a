"""LAMB (You et al., 2020): AdamW with every layer's step as long as its parameters, for large batches."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.normalize import scale_by_trust_ratio
from gradtx.transforms.scale import scale_by_learning_rate


def lamb(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    eps_root: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """LAMB: AdamW's direction, scaled leaf by leaf to the parameter's norm. Other arguments: `scale_by_adam`, `adamw`.

        r = adam(g) + weight_decay p
        p <- p - learning_rate r |p| / |r|           |p| / |r| is 1 where either is 0

    Args:
      learning_rate: each leaf's step as a fraction of the leaf's norm.

    State: 8 bytes per float32 parameter. Reads: params.
    Source: You et al., Large batch optimization for deep learning, ICLR 2020, Algorithm 2 (arXiv:1904.00962), phi being
      the identity. No clipping by the global norm first, which NVIDIA's version adds: chain `clip_by_global_norm(1.0)`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root),
        add_decayed_weights(weight_decay, mask),
        scale_by_trust_ratio(),
        scale_by_learning_rate(learning_rate),
    )

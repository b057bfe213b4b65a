"""Grams (Cao, Li, Song, 2024): Adam's lengths, entry by entry, with the signs of the gradient."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.combine.signed import signed_by_gradient
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate


def grams(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW whose momentum decides how far an entry moves, never in which direction. Other arguments: `scale_by_adam`.

        p <- p (1 - learning_rate weight_decay) - learning_rate sign(g) |m| / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    State: 8 bytes per float32 parameter. Reads: params.
    Source: Cao, Li, Song, Grams: gradient descent with adaptive momentum scaling, 2024, Definition 4.1
      (arXiv:2412.17107). The authors' code adds eps to the root of nu before its bias is corrected:
      eps = lambda t: 1e-6 / sqrt(1 - b2^(t+1)) here.
    """
    adam = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, bias_correction=bias_correction)
    return chain(
        signed_by_gradient(adam), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )

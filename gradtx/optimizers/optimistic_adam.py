"""Optimistic Adam (Daskalakis et al., 2018): Adam whose steps foresee the next one, for training of games."""

import warnings

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.optimistic_gradient_descent import scale_by_optimistic_gradient
from gradtx.transforms.scale import scale_by_learning_rate


def optimistic_adam_v2(
    learning_rate: Hyperparameter,
    *,
    alpha: Hyperparameter = 1.0,
    beta: Hyperparameter = 1.0,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    nesterov: bool = True,
) -> GradientTransformation:
    """Adam's direction and its last change. Others: `scale_by_adam`, `scale_by_optimistic_gradient`.

        p <- p - learning_rate (alpha u + beta (u - last u)),       u = m / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters.
      alpha, beta: weights of the direction and of its change.
      nesterov: Dozat's look ahead in m; the paper has none.

    State: 12 bytes per float32 parameter. Reads: gradients only.
    Source: Daskalakis, Ilyas, Syrgkanis, Zeng, Training GANs with optimism, ICLR 2018, Algorithm 1 (arXiv:1711.00141).
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(alpha, beta),
        scale_by_learning_rate(learning_rate),
    )


def optimistic_adam(
    learning_rate: Hyperparameter,
    optimism: Hyperparameter | None = None,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
) -> GradientTransformation:
    """Deprecated: `optimistic_adam_v2`, with other numbers for its weights. Warns when called.

        p <- p - (learning_rate u + optimism (u - last u)),       u = m / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters.
      optimism: weight of the change; None is the learning rate.
    """
    warnings.warn(
        "`optimistic_adam` is deprecated: use `optimistic_adam_v2` instead, whose beta is optimism / learning_rate.",
        DeprecationWarning,
        stacklevel=2,
    )
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov),
        scale_by_optimistic_gradient(learning_rate, learning_rate if optimism is None else optimism),
        scale_by_learning_rate(1.0),
    )

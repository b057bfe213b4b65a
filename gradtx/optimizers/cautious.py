"""Cautious AdamW and Lion (Liang et al., 2024): `cautious` around their directions."""

from typing import Any, Literal

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.collectives import Axis
from gradtx.combine.cautious import cautious
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.lion import scale_by_lion
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate


def cautious_adamw(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
    rescale: Literal["mean", "count"] | None = "mean",
    least: Hyperparameter = 1e-3,
    factor: Hyperparameter = 0.0,
    axis: Axis = None,
) -> GradientTransformation:
    """AdamW that leaves out the entries in which its step and the gradient disagree. Other arguments: `scale_by_adam`,
    `cautious`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u w / mean(w)     u = m / (sqrt(v) + eps); w = (u g > 0)

    Args:
      learning_rate: in units of the parameters.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. All entries
        decay.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    Source: Liang et al., 2024, and the defaults of its authors' code, C-Optim. Without `foreach` that code adds eps to
      the root of nu before the correction of its bias: eps / sqrt(1 - b2^t) here.
    """
    direction = scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, bias_correction=bias_correction)
    return chain(
        cautious(direction, rescale=rescale, least=least, factor=factor, axis=axis),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def cautious_lion(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.95,
    b2: Hyperparameter = 0.98,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    rescale: Literal["mean", "count"] | None = "count",
    least: Hyperparameter = 1e-3,
    factor: Hyperparameter = 0.0,
    axis: Axis = None,
) -> GradientTransformation:
    """Lion that leaves out the entries in which its step and the gradient disagree. Other arguments: `scale_by_lion`,
    `cautious`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u w n / (sum(w) + 1)        u = sign(x), w = (u g > 0)

    Of n entries in a leaf. A leaf of one entry moves by half of the rate.

    Args:
      learning_rate: in units of the parameters.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. All entries
        decay.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    Source: Liang et al., 2024, and the defaults of its authors' code, C-Optim. lion-pytorch's (lucidrains) is
      `rescale="mean", least=1e-5`, and b1 and b2 of `lion`.
    """
    return chain(
        cautious(scale_by_lion(b1, b2, mu_dtype), rescale=rescale, least=least, factor=factor, axis=axis),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

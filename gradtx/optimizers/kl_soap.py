"""KL-SOAP (Lin et al., 2025): SOAP with statistics that are whitened by each other."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.soap import scale_by_soap
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_decay import decay_weights


def kl_soap(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.98,
    shampoo_beta: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    *,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = False,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """`soap` whose statistics are estimated by least Kullback-Leibler divergence. Other arguments: `scale_by_soap`.

        F_1 = beta F_1 + (1 - beta) G F_2^-1 G^T / n,       F_2 = beta F_2 + (1 - beta) G^T F_1^-1 G / m

    Both sides of an m x n matrix at once; inverses by the bases and by running means of the eigenvalues in them, which
    begin at 0.1 and count as at least 1e-8. See `in_eigenbasis`, with `statistics="kl"`. Eigenvectors are not sorted.

    Args:
      learning_rate: in units of the parameters, as Adam's.
      weight_decay, mask: as in `soap`.

    Reads: params.
    Source: Lin et al., Understanding and improving Shampoo and SOAP via Kullback-Leibler minimization, 2025
      (arXiv:2509.03378), with the authors' defaults.
    Differs from the authors' code: there the inverse root of an eigenvalue is at most max(10, min(d, 4000)) for a side
      of length d, and products are in bfloat16.
    """
    return chain(
        scale_by_soap(
            b1, b2, shampoo_beta, eps, precondition_frequency, max_precond_dim,
            merge_dims=merge_dims, precondition_1d=precondition_1d, normalize_grads=normalize_grads,
            correct_bias=correct_bias, statistics="kl", weight_dimension_numbers=weight_dimension_numbers,
            mu_dtype=mu_dtype, precision=precision, rotation_dtype=rotation_dtype,
        ),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, learning_rate, mask, start=2),
    )  # fmt: skip

"""KL-Shampoo (Lin et al., 2025): Shampoo with statistics that are whitened by each other, and no Adam."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.combine.eigenbasis import in_eigenbasis
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.transforms.eigenvalues import scale_by_eigenvalues
from gradtx.transforms.momentum import ema
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_decay import decay_weights


def scale_by_kl_shampoo(
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.98,
    eps: Hyperparameter = 1e-8,
    precondition_frequency: int = 10,
    weight_dimension_numbers: Any = None,
    max_precond_dim: int = 10000,
    *,
    initial_eigenvalue: Hyperparameter = 0.1,
    least_eigenvalue: Hyperparameter = 1e-8,
    mu_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """The gradient's running mean times the inverse root of second moments of Kronecker's form.

        F_1 = b2 F_1 + (1 - b2) G F_2^-1 G^T / n,       F_2 = b2 F_2 + (1 - b2) G^T F_1^-1 G / m       from zero
        l_k = b2 l_k + (1 - b2) diag(Q_k^T (what F_k takes in) Q_k)                                    of each side
        mu = b1 mu + (1 - b1) G
        u = Q_1 [(Q_1^T mu Q_2) / (sqrt(l_1 l_2^T) + eps)] Q_2^T

    F_1 x F_2 is what a Gaussian of that form has that is nearest to the gradients', in the Kullback-Leibler divergence.
    It is never inverted: its inverses here are Q_k diag(1 / l_k) Q_k^T. Q_k becomes the Q of the QR of F_k Q_k at each
    `precondition_frequency`-th update. It is `in_eigenbasis`, with `statistics="kl"`, of a mean and
    `scale_by_eigenvalues`; the first update is zero.

    Args:
      b1: decay of mu, in [0, 1). Its bias is not corrected.
      b2: decay of F and l, in [0, 1].
      eps: in units of the gradient; not negative.
      precondition_frequency, max_precond_dim: `frequency` and `max_dim` of `in_eigenbasis`.
      weight_dimension_numbers, initial_eigenvalue, least_eigenvalue, precision, rotation_dtype: see `in_eigenbasis`.
      mu_dtype: storage of mu; None means float32 or wider.

    State: 4 bytes per float32 parameter, and 8 d^2 for each side of length d. Reads: gradients only. What has no side
    (vectors) has its mean.
    Source: Lin et al., Understanding and improving Shampoo and SOAP via Kullback-Leibler minimization, 2025
      (arXiv:2509.03378).
    Differs from the authors' code: as `kl_soap`.
    """
    return in_eigenbasis(
        chain(ema(b1, False, mu_dtype), scale_by_eigenvalues(eps)),
        b2,
        precondition_frequency,
        weight_dimension_numbers,
        max_precond_dim,
        statistics="kl",
        first="nothing",
        sort=False,
        initial_eigenvalue=initial_eigenvalue,
        least_eigenvalue=least_eigenvalue,
        precision=precision,
        rotation_dtype=rotation_dtype,
    )


def kl_shampoo(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.98,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    *,
    initial_eigenvalue: Hyperparameter = 0.1,
    least_eigenvalue: Hyperparameter = 1e-8,
    mu_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
    adam_b1: Hyperparameter = 0.9,
    adam_b2: Hyperparameter = 0.999,
    adam_weight_decay: Hyperparameter = 0.0,
    adam_learning_rate: Hyperparameter | None = None,
    weight_dimension_numbers: Any = None,
    adam_mask: Any = None,
) -> GradientTransformation:
    """KL-Shampoo for matrices, AdamW for all else: `matrices_and_others`. Other arguments: `scale_by_kl_shampoo`.

        p <- (1 - learning_rate weight_decay) (p - learning_rate u)

    Args:
      learning_rate: in units of the parameters; about as Adam's.
      weight_decay: fraction of a matrix removed after each update but the first, before the learning rate multiplies
        it. Not negative.
      adam_b1, adam_b2, adam_weight_decay: of `adamw`, which has `eps` too.
      adam_learning_rate: None means the one above.
      weight_dimension_numbers, adam_mask: which are matrices; see `matrix_labels`. None: those of two dimensions.

    Reads: params.
    Source: Lin et al., 2025 (arXiv:2509.03378), with the authors' defaults.
    """
    for_matrices = chain(
        scale_by_kl_shampoo(
            b1, b2, eps, precondition_frequency, weight_dimension_numbers, max_precond_dim,
            initial_eigenvalue=initial_eigenvalue, least_eigenvalue=least_eigenvalue, mu_dtype=mu_dtype,
            precision=precision, rotation_dtype=rotation_dtype,
        ),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, learning_rate, start=2),
    )  # fmt: skip
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    for_others = adamw(rate, adam_b1, adam_b2, eps, weight_decay=adam_weight_decay)
    return matrices_and_others(for_matrices, for_others, weight_dimension_numbers, adam_mask)

"""AdaMuon (Si et al., 2025): Muon of the momentum's signs, divided by a running root mean square of each entry."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import as_momentum
from gradtx.transforms.neurons import equalize_matrices
from gradtx.transforms.normalize import scale_by_sign
from gradtx.transforms.orthogonalize import orthogonalize
from gradtx.transforms.scale import scale_by_learning_rate


def adamuon(
    learning_rate: Hyperparameter,
    momentum: Any = 0.95,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    weight_decay_mask: Any = None,
    *,
    rms: Hyperparameter = 0.2,
    orthogonalizer: Any = None,
    others: Any = None,
    weight_dimension_numbers: Any = None,
    others_mask: Any = None,
) -> GradientTransformation:
    """AdaMuon for matrices, another method for all else: `matrices_and_others`.

        m = momentum of g,    O = U V^T of sign(m) = U S V^T
        nu = b2 nu + (1 - b2) O^2,    V = O / (sqrt(nu) + eps)
        W <- W (1 - learning_rate weight_decay) - learning_rate rms sqrt(rows columns) V / (|V| + eps)

    It is the chain

        chain(momentum, scale_by_sign(), orthogonalize(orthogonalizer), scale_by_rms(b2, eps, eps_in_sqrt=False),
              equalize_matrices(None, rms, eps=eps), add_decayed_weights(weight_decay, weight_decay_mask),
              scale_by_learning_rate(learning_rate))

    Args:
      learning_rate: with `rms` it is that of Adam.
      momentum: a decay b, which means `ema(b, debias=False, nesterov=True)`; or a transformation: `trace(0.95)`.
      b2: decay of nu, in [0, 1). The authors' code has one number for it and the momentum.
      eps: in units of the updates, which are at most about 1. Not negative.
      weight_decay: fraction of a matrix removed per update, before the learning rate multiplies it. Not negative.
      weight_decay_mask: which matrices decay; None, all. See `add_decayed_weights`.
      rms: the root mean square of a matrix's step over the learning rate. Not negative.
      orthogonalizer: `newton_schulz`, or a function of matrices of one's own; None, `newton_schulz()`.
      others: the transformation of what is no matrix; None, `adamw(learning_rate, 0.9, 0.95)`.
      weight_dimension_numbers, others_mask: which are matrices, and of which axes; see `matrices_and_others`.

    State: 8 bytes per float32 parameter. Reads: params.
    Source: Si et al., AdaMuon, 2025 (arXiv:2507.11005). Their code takes sqrt(rows columns) of a convolution from the
      smallest and the largest of its four dimensions.
    """
    numbers = weight_dimension_numbers
    matrices = chain(
        as_momentum("adamuon", momentum),
        scale_by_sign(),
        orthogonalize(orthogonalizer, numbers),
        scale_by_rms(b2, eps, eps_in_sqrt=False),
        equalize_matrices(numbers, rms, eps=eps),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(learning_rate, 0.9, 0.95) if others is None else others
    return matrices_and_others(matrices, others, numbers, others_mask)

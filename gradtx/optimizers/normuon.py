"""NorMuon (Li et al., 2025): Muon whose output neurons take steps of equal size."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import adamw
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import as_momentum
from gradtx.transforms.neurons import normalize_neurons
from gradtx.transforms.orthogonalize import orthogonalize
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.shape import scale_by_shape


def normuon(
    learning_rate: Hyperparameter,
    momentum: Any = 0.95,
    b2: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-10,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = None,
    *,
    orthogonalizer: Any = None,
    consistent_rms: Hyperparameter | None = None,
    shape_rule: Any = "at_least_one",
    others: Any = None,
    weight_dimension_numbers: Any = None,
    others_mask: Any = None,
) -> GradientTransformation:
    """NorMuon for matrices, another method for all else: `matrices_and_others`.

        m = momentum of g,    O = U V^T of m = U S V^T
        nu = b2 nu + (1 - b2) mean(O^2, inputs),    V = O / (sqrt(nu) + eps),    V <- V |O| / |V|
        W <- W (1 - learning_rate weight_decay) - learning_rate sqrt(max(1, columns / rows)) V

    It is the chain

        chain(momentum, orthogonalize(orthogonalizer), normalize_neurons(b2, eps),
              scale_by_shape(None, consistent_rms, rule=shape_rule),
              add_decayed_weights(weight_decay, weight_decay_mask), scale_by_learning_rate(learning_rate))

    and the defaults are those of the authors' code. In Dion's repository NorMuon is `trace(0.95)` for momentum, eps
    1e-8, `newton_schulz("polar_express", eps=1e-8)` and the rule "spectral".

    Args:
      learning_rate: about the spectral norm of a matrix's step.
      momentum: a decay b, which means `ema(b, debias=False, nesterov=True)`; or a transformation: `trace(0.95)`.
      b2, eps: of `normalize_neurons`.
      weight_decay: fraction of a matrix removed per update, before the learning rate multiplies it. Not negative.
      weight_decay_mask: which matrices decay; None, all. See `add_decayed_weights`.
      orthogonalizer: `newton_schulz`, or a function of matrices of one's own; None, `newton_schulz()`.
      consistent_rms, shape_rule: of `scale_by_shape`.
      others: the transformation of what is no matrix; None, `adamw(learning_rate, 0.9, 0.95)`.
      weight_dimension_numbers, others_mask: which are matrices, and of which axes; see `matrices_and_others`.

    State: 4 bytes per float32 parameter of a matrix and 4 per column, 8 per other. Reads: params.
    Source: Li et al., NorMuon, 2025 (arXiv:2510.05491).
    """
    numbers = weight_dimension_numbers
    matrices = chain(
        as_momentum("normuon", momentum),
        orthogonalize(orthogonalizer, numbers),
        normalize_neurons(b2, eps, numbers),
        scale_by_shape(numbers, consistent_rms, rule=shape_rule),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )
    others = adamw(learning_rate, 0.9, 0.95) if others is None else others
    return matrices_and_others(matrices, others, numbers, others_mask)

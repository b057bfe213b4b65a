"""SOAP-Muon (Vyas, 2026): SOAP's direction for matrices, made orthogonal."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter, at
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import all_matrices, as_dimension_numbers
from gradtx.combine.eigenbasis import in_eigenbasis
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation, transformation
from gradtx.linalg.newton_schulz import PRESETS, orthogonalized
from gradtx.optimizers.adam import adamw, scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.orthogonalize import made_orthogonal
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.shape import scale_by_shape
from gradtx.value import flag, number, static, storage_dtype, whole


@transformation
class scale_by_soap_muon(GradientTransformation):
    """Makes each matrix orthogonal that Adam makes of the gradient in the eigenbasis of its second moments.

        mu = b1 mu + (1 - b1) Q_1^T G Q_2,      nu = b2 nu + (1 - b2) |Q_1^T G Q_2|^2
        m = b1 mu + (1 - b1) Q_1^T G Q_2                                         mu without `nesterov`
        U S V^T = Q_1 [m / (sqrt(nu) + eps)] Q_2^T
        u = U V^T
        F_1 = beta F_1 + (1 - beta) G G^T,      F_2 = beta F_2 + (1 - beta) G^T G           and then anew, Q_k of F_k

    The first update is U V^T of the gradient itself, and counts for the bases alone. How it is made orthogonal: see
    `scale_by_muon`. To scale the direction to the norm of m before, as the source does, changes nothing then.

    Args:
      b1, b2: decays of mu and nu, in [0, 1). There is no correction of their bias, which would be one number.
      shampoo_beta: of F, in [0, 1].
      eps: in units of the gradient; not negative.
      precondition_frequency, max_precond_dim: `frequency` and `max_dim` of `in_eigenbasis`.
      nesterov: look one step ahead in mu.
      ns_coeffs: the name of triples or of one: see `linalg.newton_schulz`. "newton" converges to singular values of 1.
      ns_steps: how often, where there is one triple.
      weight_dimension_numbers: which axes are rows and columns; see `scale_by_muon`.
      mu_dtype: storage of mu; None means float32 or wider.
      ns_dtype: in what the products of real matrices are computed that make u; None, float32 or wider.
      precision, rotation_dtype: see `in_eigenbasis`.

    State: 8 bytes per float32 parameter, and 8 d^2 for each side of length d. Reads: gradients only.
    Raises:
      ValueError: a leaf is no matrix: it is named.
    Source: Vyas, SOAP-Muon, 2026; records 14 and 44 of the optimization track of modded-nanogpt, whose defaults these
      are.
    """

    b1: Hyperparameter = number(default=0.95, within="[0, 1)")
    b2: Hyperparameter = number(default=0.9, within="[0, 1)")
    shampoo_beta: Hyperparameter = number(default=0.9, within="[0, 1]")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    precondition_frequency: int = number(default=1, within="[1, inf)", integer=True)
    max_precond_dim: int = whole(default=10000, within="[1, inf)")
    nesterov: bool = flag(default=True, kw_only=True)
    ns_coeffs: str = static(default="newton", one_of=tuple(PRESETS), kw_only=True)
    ns_steps: int = static(default=5, convert=whole(within="[0, inf)").metadata["convert"], kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    ns_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    precision: str = static(default="highest", kw_only=True)
    rotation_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        all_matrices(self.weight_dimension_numbers, params, self.name)
        return self._rotating().bare_init(params)

    def update(self, updates, state, params=None, **extra):
        triples: Any = PRESETS[self.ns_coeffs]
        triples = triples if isinstance(triples[0], tuple) else (triples,) * self.ns_steps
        (eps,) = at(state.count, self.eps)
        updates, state = self._rotating().bare_update(updates, state, None)
        orthogonal = lambda x, eps: orthogonalized(x, triples, "frobenius", eps)
        numbers = self.weight_dimension_numbers
        return made_orthogonal(orthogonal, updates, numbers, self.name, (eps,), self.ns_dtype), state

    def _rotating(self) -> in_eigenbasis:
        inner = scale_by_adam(
            self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype, nesterov=self.nesterov, bias_correction=False
        )
        return in_eigenbasis(
            inner,
            self.shampoo_beta,
            self.precondition_frequency,
            self.weight_dimension_numbers,
            self.max_precond_dim,
            first="gradient",
            precision=self.precision,
            rotation_dtype=self.rotation_dtype,
        )


def soap_muon(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.95,
    b2: Hyperparameter = 0.9,
    shampoo_beta: Hyperparameter = 0.9,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = None,
    *,
    precondition_frequency: int = 1,
    max_precond_dim: int = 10000,
    nesterov: bool = True,
    ns_coeffs: str = "newton",
    ns_steps: int = 5,
    mu_dtype: DTypeLike | None = None,
    ns_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
    adam_b1: Hyperparameter = 0.9,
    adam_b2: Hyperparameter = 0.999,
    adam_weight_decay: Hyperparameter = 0.0,
    adam_learning_rate: Hyperparameter | None = None,
    weight_dimension_numbers: Any = None,
    consistent_rms: Hyperparameter | None = None,
    adam_mask: Any = None,
) -> GradientTransformation:
    """SOAP-Muon for matrices, AdamW for all else: `matrices_and_others`. Other arguments: `scale_by_soap_muon`,
    `scale_by_shape`.

        W <- W (1 - learning_rate weight_decay) - learning_rate sqrt(max(1, columns / rows)) U V^T

    Args:
      learning_rate: about the spectral norm of a matrix's step.
      weight_decay, weight_decay_mask: of matrices; see `add_decayed_weights`.
      adam_b1, adam_b2, adam_weight_decay: of `adamw`, which has `eps` too.
      adam_learning_rate: None means the one above; see `muon`.
      weight_dimension_numbers, adam_mask: which are matrices; see `matrix_labels`. None: those of two dimensions.

    Reads: params.
    Source: Vyas, SOAP-Muon, 2026.
    """
    for_matrices = chain(
        scale_by_soap_muon(
            b1, b2, shampoo_beta, eps, precondition_frequency, max_precond_dim, nesterov=nesterov, ns_coeffs=ns_coeffs,
            ns_steps=ns_steps, weight_dimension_numbers=weight_dimension_numbers, mu_dtype=mu_dtype, ns_dtype=ns_dtype,
            precision=precision, rotation_dtype=rotation_dtype,
        ),
        scale_by_shape(weight_dimension_numbers, consistent_rms),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
    rate = learning_rate if adam_learning_rate is None else adam_learning_rate
    for_others = adamw(rate, adam_b1, adam_b2, eps, weight_decay=adam_weight_decay)
    return matrices_and_others(for_matrices, for_others, weight_dimension_numbers, adam_mask)

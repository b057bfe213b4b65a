"""SOAP (Vyas et al., 2025): Adam in the eigenbasis of Shampoo's statistics."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.combine.eigenbasis import in_eigenbasis
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import ema_mass, length, rms
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_decay import decay_weights
from gradtx.value import flag, number, static, storage_dtype, whole


@transformation
class scale_by_soap(GradientTransformation):
    """Adam's direction in the eigenbasis of the gradient's second moments.

        F_k = beta F_k + (1 - beta) G_(k) G_(k)^H                      of every side k of G, after it is used
        r = Q^H G,      mu = b1 mu + (1 - b1) r,      nu = b2 nu + (1 - b2) |r|^2
        u = sqrt(1 - b2^t) / (1 - b1^t) Q (mu / (sqrt(nu) + eps))

    Q are the eigenvectors of F_1 F_2 ..., by one orthogonal iteration at each `precondition_frequency`-th update. It is
    `in_eigenbasis(scale_by_adam(bias_correction=False), first="nothing")` times a number: see there.

    The first update is zero, and counts for the bases alone: t is 1 at the second.

    Args:
      b1, b2: as in `scale_by_adam`.
      shampoo_beta: the decay of F, in [0, 1]; None, b2.
      eps: in units of the gradient; not negative. It is added to the root of nu with its bias, so that early it weighs
        more than `scale_by_adam`'s.
      precondition_frequency, max_precond_dim, merge_dims, precondition_1d: `frequency`, `max_dim`, `merge_dims`,
        `vectors` of `in_eigenbasis`.
      normalize_grads: divide by the root mean square of each leaf, before the factor in front of Q.
      correct_bias: False leaves that factor out.
      statistics: "gradient", or "kl" for KL-SOAP, which does not sort eigenvectors.
      mu_dtype: storage of mu; None means float32 or wider.
      weight_dimension_numbers, precision, rotation_dtype: see `in_eigenbasis`.

    State: 8 bytes per float32 parameter, and 8 d^2 for each side of length d. Reads: gradients only.
    Source: Vyas et al., SOAP, ICLR 2025, Algorithm 3 (arXiv:2409.11321), and the authors' code (nikhilvyas/SOAP), whose
      steps these are; Lin et al., 2025 (arXiv:2509.03378), "kl".
    Differs from the authors' code: mu rotates when Q changes, and not back and forth at each update; it is the same.
    """

    b1: Hyperparameter = number(default=0.95, within="[0, 1)")
    b2: Hyperparameter = number(default=0.95, within="[0, 1)")
    shampoo_beta: Hyperparameter | None = number(default=None, within="[0, 1]", optional=True)
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    precondition_frequency: int = number(default=10, within="[1, inf)", integer=True)
    max_precond_dim: int = whole(default=10000, within="[1, inf)")
    merge_dims: bool = flag(default=False, kw_only=True)
    precondition_1d: bool = flag(default=False, kw_only=True)
    normalize_grads: bool = flag(default=False, kw_only=True)
    correct_bias: bool = flag(default=True, kw_only=True)
    statistics: str = static(default="gradient", one_of=("gradient", "kl"), kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    precision: str = static(default="highest", kw_only=True)
    rotation_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        return self._rotating().bare_init(params)

    def update(self, updates, state, params=None, **extra):
        b1, b2 = at(state.inner_state.count, self.b1, self.b2)
        updates, new = self._rotating().bare_update(updates, state, None)
        factor = 1.0
        if self.correct_bias:
            t = jnp.maximum(new.inner_state.count, 1)
            factor = length(ema_mass(b2, t)) / ema_mass(b1, t)

        def leaf(u):
            if not self.normalize_grads:
                return u * factor
            size = yield from rms(u)
            return u * (factor / size)

        return leafwise.map(leaf, updates) if self.correct_bias or self.normalize_grads else updates, new

    def _rotating(self) -> in_eigenbasis:
        return in_eigenbasis(
            scale_by_adam(self.b1, self.b2, self.eps, mu_dtype=self.mu_dtype, bias_correction=False),
            self.b2 if self.shampoo_beta is None else self.shampoo_beta,
            self.precondition_frequency,
            self.weight_dimension_numbers,
            self.max_precond_dim,
            merge_dims=self.merge_dims,
            vectors=self.precondition_1d,
            statistics=self.statistics,
            first="nothing",
            sort=self.statistics == "gradient",
            precision=self.precision,
            rotation_dtype=self.rotation_dtype,
        )


def soap(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.95,
    b2: Hyperparameter = 0.95,
    shampoo_beta: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    precondition_frequency: int = 10,
    max_precond_dim: int = 10000,
    merge_dims: bool = False,
    precondition_1d: bool = False,
    normalize_grads: bool = False,
    correct_bias: bool = True,
    *,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """SOAP: Adam in the eigenbasis of Shampoo's statistics. Other arguments: `scale_by_soap`.

        p <- (1 - learning_rate weight_decay) (p - learning_rate u)

    Args:
      learning_rate: in units of the parameters, as Adam's; the authors' is 3e-3.
      weight_decay: fraction of p removed after each update but the first, before the learning rate multiplies it. Not
        negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Vyas et al., SOAP, ICLR 2025 (arXiv:2409.11321), with the authors' defaults.
    """
    return chain(
        scale_by_soap(
            b1, b2, shampoo_beta, eps, precondition_frequency, max_precond_dim,
            merge_dims=merge_dims, precondition_1d=precondition_1d, normalize_grads=normalize_grads,
            correct_bias=correct_bias, weight_dimension_numbers=weight_dimension_numbers, mu_dtype=mu_dtype,
            precision=precision, rotation_dtype=rotation_dtype,
        ),
        scale_by_learning_rate(learning_rate),
        decay_weights(weight_decay, learning_rate, mask, start=2),
    )  # fmt: skip

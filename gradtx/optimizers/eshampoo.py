"""Shampoo with corrected eigenvalues (Eschenhagen et al., 2025): SOAP as Meta has it."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.eigenbasis import in_eigenbasis
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, storage_dtype


@transformation
class scale_by_filtered_adam(GradientTransformation):
    """Adam with another weight of the past in its step than in its running mean.

        f = b3 mu + (1 - b3) g
        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        u = f / (1 - b3 b1^(t-1)) / (sqrt(nu / (1 - b2^t)) + eps)

    At b3 = b1 it is `scale_by_adam`; at b1^2 it looks a step ahead, as Nesterov's; at 0 it has no mean.

    Args:
      b1, b2: as in `scale_by_adam`.
      b3: in [0, 1]; None, b1.
      eps: outside the root, in units of the gradient. Not negative.
      mu_dtype: storage of mu; None means float32 or wider.
      bias_correction: False leaves out both divisions.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: the filter of Shi et al., 2023 (arXiv:2309.06497), in Meta's code.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    b3: Hyperparameter | None = number(default=None, within="[0, 1]", optional=True)
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        return ScaleByAdamState(start(), mu=leafwise.zeros(params, self.mu_dtype), nu=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, b3, eps = at(state.count, self.b1, self.b2, self.b1 if self.b3 is None else self.b3, self.eps)
        count = tick(state.count)
        past = jnp.where(state.count > 0, ema_mass(b1, jnp.maximum(state.count, 1)), 0)  # 1 - b1^(t-1)
        mass = 1 - b3 + b3 * past  # 1 - b3 b1^(t-1)
        scale1 = jnp.where(mass > 0, 1 / jnp.where(mass > 0, mass, 1), 0) if self.bias_correction else 1
        scale2 = 1 / ema_mass(b2, count) if self.bias_correction else 1

        def leaf(g, mu, nu):
            f = ema(mu, g, b3)
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            return f * scale1 / (root(nu * scale2) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def eshampoo(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    b3: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    frequency: int = 1,
    max_dim: int = 1024,
    *,
    start: int | None = None,
    bias_correction: bool = True,
    decomposition: str = "eigh",
    merge_dims: bool = False,
    least_dims: int = 1,
    vectors: bool = True,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    precision: str = "highest",
    rotation_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Shampoo with corrected eigenvalues: `scale_by_filtered_adam` `in_eigenbasis`, each of which explains arguments.

        p <- p (1 - learning_rate weight_decay) - learning_rate Q [(Q^T f) / (sqrt(nu) + eps)]

    As SOAP, but that the basis is made before its use, of the gradient too, by eigenvectors; that it begins at the
    update numbered `start` (None: `frequency`), before which it is Adam; that nu stays where it is when the basis
    changes; and that the first update is a step.

    Args:
      learning_rate: in units of the parameters, as Adam's.
      b2: of nu and of the sides' second moments.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    State: 8 bytes per float32 parameter, and 8 d^2 for each side of length d. Reads: params.
    Source: Eschenhagen et al., Purifying Shampoo, 2025 (arXiv:2506.03595), and Meta's code of it.
    Differs from Meta's code: a side longer than `max_dim` is left alone, not cut into blocks.
    """
    inner = scale_by_filtered_adam(b1, b2, b3, eps, mu_dtype, bias_correction=bias_correction)
    basis = in_eigenbasis(
        inner, b2, frequency, weight_dimension_numbers, max_dim,
        merge_dims=merge_dims, least_dims=least_dims, vectors=vectors, decomposition=decomposition, refresh="before",
        start=start, sort=False, precision=precision, rotation_dtype=rotation_dtype,
    )  # fmt: skip
    return chain(basis, add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate))

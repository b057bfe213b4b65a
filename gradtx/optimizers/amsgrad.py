"""AMSGrad (Reddi, Kale, Kumar, 2018): Adam whose second moment never falls."""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, static, storage_dtype


@state
class ScaleByAmsgradState(NamedTuple):
    """State of `scale_by_amsgrad`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    nu_max: Squares  # the largest (corrected) nu so far, real, float32 or wider


@transformation
class scale_by_amsgrad(GradientTransformation):
    """Divides the gradient's running mean by the root of the largest running square so far.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              n = max(n, nu / (1 - b2^t))
        u = m / (sqrt(n + eps_root) + eps)

    Args:
      b1, b2, eps, eps_root, mu_dtype: as in `scale_by_adam`.
      bias_correction_mu: False leaves out the division by 1 - b1^t. The paper has neither correction.
      bias_correction_nu: False leaves out the division by 1 - b2^t. "after" corrects the largest nu, as PyTorch does,
        n = max(n, nu) and sqrt(n / (1 - b2^t)), so that n of the first updates, of few gradients, does not stay.

    State: 12 bytes per float32 parameter. Reads: gradients only.
    Source: Reddi, Kale, Kumar, On the convergence of Adam and beyond, ICLR 2018, Algorithm 2 (arXiv:1904.09237).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    bias_correction_mu: bool = flag(default=True)
    bias_correction_nu: bool | Literal["after"] = static(default=True, one_of=(True, False, "after"))

    def init(self, params):
        nu, nu_max = leafwise.zeros(params, real=True), leafwise.zeros(params, real=True)
        return ScaleByAmsgradState(start(), leafwise.zeros(params, self.mu_dtype), nu, nu_max)

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        scale1 = 1 / ema_mass(b1, count) if self.bias_correction_mu else 1
        scale2 = 1 / ema_mass(b2, count) if self.bias_correction_nu else 1
        before, after = (1, scale2) if self.bias_correction_nu == "after" else (scale2, 1)

        def leaf(g, mu, nu, nu_max):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            nu_max = jnp.maximum(nu_max, nu * before)
            return mu * scale1 / (root(nu_max * after + eps_root) + eps), mu, nu, nu_max

        updates, *moments = leafwise.unzip_map(leaf, updates, state.mu, state.nu, state.nu_max, outputs=4)
        return updates, ScaleByAmsgradState(count, *moments)


def amsgrad(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    bias_correction_mu: bool = True,
    bias_correction_nu: bool | Literal["after"] = True,
) -> GradientTransformation:
    """AMSGrad: Adam whose rate per coordinate never rises. Other arguments: `scale_by_amsgrad`.

        p <- p - learning_rate m / (sqrt(n + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters.
    """
    return chain(
        scale_by_amsgrad(b1, b2, eps, eps_root, mu_dtype, bias_correction_mu, bias_correction_nu),
        scale_by_learning_rate(learning_rate),
    )

"""NovoGrad (Ginsburg et al., 2019): gradients normalized leaf by leaf, then momentum."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import ema, root, squares_summed
from gradtx.transforms.decay import decayed
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state, storage_dtype


@state
class ScaleByNovogradState(NamedTuple):
    """State of `scale_by_novograd`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # decayed sum of normalized gradients, stored as `mu_dtype`
    nu: Params  # running mean of |g|^2, one number per leaf, float32 or wider


@transformation
class scale_by_novograd(GradientTransformation):
    """Divides each leaf of the gradient by its running norm, adds weight decay, and sums with momentum.

        nu = b2 nu + (1 - b2) |g|^2          nu = |g|^2 at the first update; |g| is the leaf's L2 norm
        mu = b1 mu + (g / (sqrt(nu + eps_root) + eps) + weight_decay p)           from zero
        u = mu

    Args:
      b1: decay of mu, in [0, 1). A constant gradient is amplified by 1 / (1 - b1).
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of a leaf's gradient norm. Not negative.
      eps_root: inside the root, in squared units of it. Not negative.
      weight_decay: in units of normalized gradients per unit of parameter. Not negative.
      mu_dtype: storage of mu; None means float32 or wider.

    State: 4 bytes per float32 parameter, 4 per leaf. Reads: params; gradients once more, for the norm.
    Source: Ginsburg et al., Stochastic gradient methods with layer-wise adaptive moments for training of deep networks,
      2019, Algorithm 1 (arXiv:1905.11286). The mean is the sum of Algorithm 1, without (1 - b1).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.25, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)

    def init(self, params):
        return ScaleByNovogradState(start(), leafwise.zeros(params, self.mu_dtype), leafwise.zero_of_each(params))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        b1, b2, eps, eps_root, decay = at(state.count, self.b1, self.b2, self.eps, self.eps_root, self.weight_decay)
        memory = jnp.where(state.count == 0, 0, b2)

        def leaf(g, mu, nu, p):
            (square,) = yield from squares_summed((g,))
            nu = ema(nu, square, memory)
            mu = b1 * mu + decayed(g * (1 / (root(nu + eps_root) + eps)), p, decay)
            return mu, mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, params, outputs=3)
        return updates, ScaleByNovogradState(tick(state.count), mu, nu)


def novograd(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.25,
    eps: Hyperparameter = 1e-6,
    eps_root: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
) -> GradientTransformation:
    """NovoGrad: momentum SGD on gradients that are as long in every leaf. Other arguments: `scale_by_novograd`.

        mu = b1 mu + (g / (sqrt(nu) + eps) + weight_decay p);  p <- p - learning_rate mu

    Args:
      learning_rate: each leaf moves by about learning_rate / (1 - b1), in units of the parameters.
    """
    return chain(scale_by_novograd(b1, b2, eps, eps_root, weight_decay), scale_by_learning_rate(learning_rate))

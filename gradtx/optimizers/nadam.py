"""Nadam (Dozat, 2016): Adam with a look ahead, also with its own schedule of momentum, which rises to b1."""

from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, power, root
from gradtx.optimizers.adam import adam, adamw
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_decay import decoupled
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, storage_dtype


@state
class ScaleByNadamState(NamedTuple):
    """State of `scale_by_nadam`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    product: Array  # of all decays of mu so far, scalar, float32 or wider


@transformation
class scale_by_nadam(GradientTransformation):
    """`scale_by_adam` with a look ahead, and a momentum that rises with time.

        b(t) = b1 (1 - 0.96^(momentum_decay t) / 2)
        mu = b(t) mu + (1 - b(t)) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = b(t+1) mu / (1 - b(1) ... b(t+1)) + (1 - b(t)) g / (1 - b(1) ... b(t))
        u = m / (sqrt(nu / (1 - b2^t) + eps_root) + eps)

    Args:
      b1: what the decay of mu rises to, in [0, 1).
      b2, eps, eps_root, mu_dtype: as in `scale_by_adam`.
      momentum_decay: how fast it rises: at 0.004 it is half way after 4245 updates. Not negative; 0 stays at b1 / 2.
      constant_mean: mu = b1 mu + (1 - b1) g, and b(t) in m alone, as PyTorch.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016, Algorithm 2.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    momentum_decay: Hyperparameter = number(default=0.004, within="[0, inf)", kw_only=True)
    constant_mean: bool = flag(default=False, kw_only=True)

    def init(self, params):
        mu, nu = leafwise.zeros(params, self.mu_dtype), leafwise.zeros(params, real=True)
        return ScaleByNadamState(start(), mu, nu, geometry.scalar(params, 1))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        (rise,) = at(state.count, self.momentum_decay)
        count = tick(state.count)
        now, ahead = (b1 * (1 - 0.5 * power(0.96, rise * as_float(t))) for t in (count, tick(count)))
        product = state.product * now
        of_mu, of_g = ahead / (1 - product * ahead), (1 - now) / (1 - product)
        scale2, decay = 1 / ema_mass(b2, count), b1 if self.constant_mean else now

        def leaf(g, mu, nu):
            mu, nu = ema(mu, g, decay), ema(nu, abs_sq(g), b2)
            return (of_mu * mu + of_g * g) / (root(nu * scale2 + eps_root) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByNadamState(count, mu, nu, product)


def nadam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyperparameter | None = None,
) -> GradientTransformation:
    """`adam` with `nesterov`, or `scale_by_nadam`.

    Args:
      momentum_decay: None for the same b1 all the time; 0.004 for the paper's, which rises. See `scale_by_nadam`.

    Source: Dozat, Incorporating Nesterov momentum into Adam, ICLR workshop 2016; by default without its schedule of b1.
    """
    if momentum_decay is None:
        return adam(learning_rate, b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov)
    return chain(
        _rising(nesterov, momentum_decay, b1, b2, eps, eps_root, mu_dtype), scale_by_learning_rate(learning_rate)
    )


def nadamw(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = True,
    momentum_decay: Hyperparameter | None = None,
) -> GradientTransformation:
    """`adamw` with `nesterov`, or `nadam` with `momentum_decay` and `adamw`'s decay.

    Source: Dozat, 2016, as `nadam`, and Loshchilov, Hutter, 2019, as `adamw`.
    """
    if momentum_decay is None:
        return adamw(learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask, nesterov=nesterov)
    rising = _rising(nesterov, momentum_decay, b1, b2, eps, eps_root, mu_dtype)
    return chain(rising, decoupled(learning_rate, weight_decay, mask))


def _rising(nesterov: bool, momentum_decay: Hyperparameter, *moments: Any) -> GradientTransformation:
    if not nesterov:
        raise ValueError("`nadam`: momentum_decay is for the look ahead, got nesterov=False.")
    return scale_by_nadam(*moments, momentum_decay=momentum_decay)

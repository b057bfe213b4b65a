"""LaProp (Ziyin, Wang, Ueda, 2020): Adam that divides each gradient by its scale first, and averages then."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, storage_dtype

CENTERED_FROM = 11  # the first update whose divisor is centered: before, a variance is of too few gradients


@state
class ScaleByLapropState(NamedTuple):
    """State of `scale_by_laprop`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of the divided gradients, stored as `mu_dtype`
    nu: Squares  # running mean of |g|^2, real, float32 or wider
    nu_max: Squares  # if `amsgrad`, the largest divisor so far, real, float32 or wider; else None
    mean: Means  # if `centered`, running mean of g, float32 or wider; else None
    mass: Array | None  # with `weight`, scalar: what mu would be of ones


@transformation
class scale_by_laprop(GradientTransformation):
    """Averages gradients each of which was divided by the running root mean square of its time.

        nu = b2 nu + (1 - b2) |g|^2                                                     from zero
        mu = b1 mu + (1 - b1) g / (sqrt(nu / (1 - b2^t)) + eps)                         from zero
        u = mu / (1 - b1^t)

    Adam divides the mean of past gradients by the scale of now. Here no step is longer than about 1 whatever b1 and b2
    are, and b2 = 0 gives the mean of the signs.

    Args:
      b1: decay of mu, in [0, 1). Its memory is about 1 / (1 - b1) updates.
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      mu_dtype: storage of mu; None means float32 or wider.
      amsgrad: divide by the largest nu so far, before its bias is corrected.
      centered: from the 11th update on, nu minus the square of a running mean of g, of decay b2, takes its place.
      weight: with which a gradient enters mu, whose bias correction becomes the same mean of the weights. Not negative.
        None: all alike. With the schedule of the learning rate, as in the authors' code, an old gradient counts by the
        rate that it came with.

    State: 8 bytes per float32 parameter, 4 more each with `amsgrad` and `centered`. Reads: gradients only.
    Source: Ziyin, Wang, Ueda, LaProp: separating momentum and adaptivity in Adam, 2020, Algorithm 1 (arXiv:2002.04839).
      `amsgrad`, `centered` and `weight` are the authors' code's. Where the rate is 0 that steps by mu as it is; here
      nothing moves then.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-15, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    amsgrad: bool = flag(default=False, kw_only=True)
    centered: bool = flag(default=False, kw_only=True)
    weight: Hyperparameter | None = number(default=None, within="[0, inf)", optional=True, kw_only=True)

    def init(self, params):
        none = leafwise.choose(lambda p: None, params)
        return ScaleByLapropState(
            start(),
            mu=leafwise.zeros(params, self.mu_dtype),
            nu=leafwise.zeros(params, real=True),
            nu_max=leafwise.zeros(params, real=True) if self.amsgrad else none,
            mean=leafwise.zeros(params) if self.centered else none,
            mass=None if self.weight is None else geometry.scalar(params, 0),
        )

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps = at(state.count, self.b1, self.b2, self.eps)
        count = tick(state.count)
        is_centered = count >= CENTERED_FROM
        scale2 = 1 / ema_mass(b2, count)
        weight, mass, total = 1.0, None, ema_mass(b1, count)
        if self.weight is not None:
            (weight,) = at(state.count, self.weight)
            mass = total = ema(state.mass, weight, b1)
        scale1 = jnp.where(total > 0, 1 / jnp.where(total > 0, total, 1), 0)

        def leaf(g, mu, nu, nu_max, mean):
            nu = square = ema(nu, abs_sq(g), b2)
            if self.centered:
                mean = ema(mean, g, b2)
                square = jnp.where(is_centered, jnp.maximum(nu - abs_sq(mean), 0), nu)
            if self.amsgrad:
                largest = jnp.maximum(nu_max, square)
                nu_max = jnp.where(is_centered, largest, nu_max) if self.centered else largest
                square = jnp.where(is_centered, largest, square) if self.centered else largest
            divided = g / (root(square * scale2) + eps)
            mu = ema(mu, divided if self.weight is None else divided * weight, b1)
            return mu * scale1, mu, nu, nu_max, mean

        slots = state.mu, state.nu, state.nu_max, state.mean
        updates, mu, nu, nu_max, mean = leafwise.unzip_map(leaf, updates, *slots, outputs=5)
        return updates, ScaleByLapropState(count, mu, nu, nu_max, mean, mass)


def laprop(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-15,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    amsgrad: bool = False,
    centered: bool = False,
    weight: Hyperparameter | None = None,
) -> GradientTransformation:
    """LaProp: steps of the learning rate at most, in every coordinate. Other arguments: `scale_by_laprop`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. In the
        authors' code no rate multiplies it, and p is what the step led to: a `decay_weights` at the end.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_laprop(b1, b2, eps, mu_dtype, amsgrad=amsgrad, centered=centered, weight=weight),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

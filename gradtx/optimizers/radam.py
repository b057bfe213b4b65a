"""RAdam (Liu et al., 2020): Adam that waits for its second moment before it trusts it."""

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root, unbiased_mean
from gradtx.optimizers.adam import ScaleByAdamState
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number


@transformation
class scale_by_radam(GradientTransformation):
    """Divides as Adam does once the second moment rests on enough gradients; before, only averages.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = r m / (sqrt(v + eps_root) + eps)   where rho >= threshold,   u = m   where it is below

        rho_inf = 2 / (1 - b2) - 1,       rho = rho_inf - 2 t b2^t / (1 - b2^t)
        r = sqrt((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))

    Args:
      b1, b2, eps, eps_root, nesterov: as in `scale_by_adam`.
      threshold: the least rho, a number of gradients, at which the second moment is used. At least 4.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020, Algorithm 2
      (arXiv:1908.03265). Its threshold is 4; 5 is its authors' code's and Optax's.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    threshold: Hyperparameter = number(default=5.0, within="[4, inf)")
    nesterov: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return ScaleByAdamState(start(), mu=leafwise.zeros(params), nu=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root, threshold = at(state.count, self.b1, self.b2, self.eps, self.eps_root, self.threshold)
        count = tick(state.count)
        mean, scale2 = unbiased_mean(b1, count, self.nesterov), 1 / ema_mass(b2, count)
        trusted, r = rectification(b2, count, threshold)

        def leaf(g, mu, nu):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            m = mean(mu, g)
            return jnp.where(trusted, r * m / (root(nu * scale2 + eps_root) + eps), m), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def rectification(b2: Array, count: Array, threshold: Array | float) -> tuple[Array, Array]:
    """Whether rho has reached the threshold, and RAdam's factor r, some number where it has not."""
    rho, rho_inf = average_length(b2, count), jnp.asarray(2 / (1 - b2) - 1)
    trusted = rho >= threshold
    safe_rho, rho_inf = jnp.where(trusted, rho, 5.0), jnp.where(trusted, rho_inf, 6.0)
    return trusted, jnp.sqrt((safe_rho - 4) / (rho_inf - 4) * ((safe_rho - 2) / (rho_inf - 2)) * (rho_inf / safe_rho))


def average_length(decay: Array, count: Array) -> Array:
    """RAdam's rho: the length of the simple average with the same centre as an exponential average of `count` values.

        rho = 2 / (1 - decay) - 1 - 2 count decay^count / (1 - decay^count)

    As written it is a difference of numbers near 2000 that should give 6: in float32 too coarse. With
    x = -log(decay) and y = count x it is  [2 / (1 - decay) - 1 - 2 / x] + (2 / x) [1 - y / (e^y - 1)], whose brackets
    have power series without the cancellation; the second's begins with y / 2, which makes count.
    """
    decay, count = jnp.asarray(decay), as_float(count)
    gap = 1 - decay
    x = -jnp.log(jnp.maximum(decay, float(jnp.finfo(decay.dtype).tiny)))
    y = count * x
    offset_series = gap * (1 / 6 + gap * (1 / 12 + gap * (19 / 360 + gap * (3 / 80 + gap * (863 / 30240)))))
    offset = jnp.where(gap < 1e-2, offset_series, 2 / gap - 1 - 2 / x)
    z = jnp.minimum(y, 0.3) ** 2  # where the series is not meant it overflows
    bend = z * (1 / 12 - z * (1 / 720 - z * (1 / 30240 - z * (1 / 1209600 - z / 47900160))))
    far = jnp.maximum(y, 0.3)
    return offset + jnp.where(y < 0.3, count - 2 / x * bend, 2 / x * (1 - far * jnp.exp(-far) / -jnp.expm1(-far)))


def radam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    threshold: Hyperparameter = 5.0,
    *,
    nesterov: bool = False,
) -> GradientTransformation:
    """RAdam: Adam with a built-in warmup. Other arguments: `scale_by_radam`.

    Args:
      learning_rate: in units of the parameters once rho reaches the threshold; per unit of gradient before.
    """
    return chain(
        scale_by_radam(b1, b2, eps, eps_root, threshold, nesterov=nesterov), scale_by_learning_rate(learning_rate)
    )

"""Moments: running averages and squares. The only place their arithmetic is written. Arrays in, arrays out."""

import jax.numpy as jnp
from jax import Array


def ema(average: Array, x: Array, decay: Array) -> Array:
    """The exponential moving average's next value.

    Not average + (1 - decay) (x - average): a large average would swallow x, even at decay 0.
    """
    return decay * average + (1 - decay) * x


def ema_mass(decay: Array, count: Array) -> Array:
    """1 - decay^count: the share of data in an average that started from zero. Exact also for decays
    near 1.

    Dividing an average by it removes the bias of the zero start. For a decay that changes with time it is Adam's
    usual approximation: the decay of now, to the power of the count.
    """
    return -jnp.expm1(count * jnp.log(decay))


def abs_sq(x: Array) -> Array:
    """|x|^2, real for complex x."""
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)


def root(x: Array) -> Array:
    """The square root of x >= 0, with derivative 0 at 0 instead of infinity.

    The smallest normal number stands in for 0: its root (1e-19 in float32) vanishes beside any eps in use, 0 / root(0)
    is 0, and differentiating through a zero second moment gives numbers, not NaN.
    """
    return jnp.sqrt(jnp.maximum(x, jnp.finfo(x.dtype).tiny))


def mean_square(x: Array) -> Array:
    """The mean of |x|^2 over all entries; 0 for an array without entries."""
    return jnp.sum(abs_sq(x)) * (1 / max(x.size, 1))


def rms(x: Array) -> Array:
    """The `root` of the mean square over all entries, a scalar."""
    return root(mean_square(x))

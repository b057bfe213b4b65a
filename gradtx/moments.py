"""Moments: running averages and squares. The only place their arithmetic is written. Arrays in, arrays out."""

import math

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.placement import on_one_device

LONG = 2**14  # entries beyond which adding float32 numbers one after another is too coarse


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


@jax.custom_jvp
def sums_of_squares(x: Array, y: Array) -> tuple[Array, Array]:
    """The sums of |x|^2 and |y|^2 over all entries, for two arrays of one shape, in one pass over both.

    On one CPU or GPU it is one reduction with two results. XLA computes x anew inside of it; on the CPU, with two
    reductions, it would write x to memory first. For a TPU two reductions fuse better.
    """
    if not on_one_device() or not _traced(x, y):
        return _two_sums(x, y)
    return jax.lax.platform_dependent(x, y, tpu=_two_sums, default=_sums_in_one_pass)


@sums_of_squares.defjvp
def _derivative(primals, tangents):
    slope = lambda x, dx: 2 * jnp.sum((jnp.conj(x) * dx).real)
    return sums_of_squares(*primals), (slope(primals[0], tangents[0]), slope(primals[1], tangents[1]))


def _two_sums(x: Array, y: Array) -> tuple[Array, Array]:
    return jnp.sum(abs_sq(x)), jnp.sum(abs_sq(y))


def _sums_in_one_pass(x: Array, y: Array) -> tuple[Array, Array]:
    """Of a large array first over the last dimension.

    Entries are added one after another; where they are too many for float32, `jnp.sum` adds them.
    """
    sums = abs_sq(x), abs_sq(y)
    dimensions = range(x.ndim)
    for axes in (dimensions,) if x.size <= LONG else (dimensions[-1:], dimensions[:-1]):
        if axes and math.prod(sums[0].shape[i] for i in axes) <= LONG:
            zero, add = np.zeros((), sums[0].dtype), lambda a, b: (a[0] + b[0], a[1] + b[1])
            sums = jax.lax.reduce(sums, (zero, zero), add, axes)
    return jnp.sum(sums[0]), jnp.sum(sums[1])


def again(*arrays: Array) -> tuple[Array, ...]:
    """The same arrays, for computing from them once more what was computed from them before.

    XLA on the CPU would keep the first result in memory for its second use, a pass over memory for each of writing and
    reading; behind this barrier it takes the two for different. Elsewhere it fuses both uses, and there is no barrier.
    """
    if not on_one_device() or not _traced(*arrays):
        return arrays
    barrier = lambda *xs: jax.lax.optimization_barrier(xs)
    return jax.lax.platform_dependent(*arrays, cpu=barrier, default=lambda *xs: xs)


def _traced(*arrays: Array) -> bool:
    return any(isinstance(x, jax.core.Tracer) for x in arrays)


def mean_square(x: Array) -> Array:
    """The mean of |x|^2 over all entries; 0 for an array without entries."""
    return jnp.sum(abs_sq(x)) * (1 / max(x.size, 1))


def rms(x: Array) -> Array:
    """The `root` of the mean square over all entries, a scalar."""
    return root(mean_square(x))

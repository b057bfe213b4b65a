"""Moments: running averages and squares. The only place their arithmetic is written. Arrays in, arrays out."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.clock import as_float
from gradtx.placement import on_one_device

LONG = 2**14  # entries beyond which adding float32 numbers one after another is too coarse


def ema(average: Array, x: Array, decay: Array) -> Array:
    """The exponential moving average's next value.

    Not average + (1 - decay) (x - average): a large average would swallow x, even at decay 0.
    """
    return decay * average + (1 - decay) * x


@jax.custom_jvp
def ema_mass(decay: Array, count: Array) -> Array:
    """1 - decay^count: the share of data in an average that started from zero. Exact also for decays
    near 1.

    Dividing an average by it removes the bias of the zero start. For a decay that changes with time it is Adam's
    usual approximation: the decay of now, to the power of the count. The derivative is exact at decay 0 too.
    """
    return -jnp.expm1(as_float(count) * jnp.log(decay))


@ema_mass.defjvp
def _slope_of_mass(primals, tangents):
    decay, count = primals
    count = as_float(count)
    return ema_mass(*primals), -count * decay ** (count - 1) * tangents[0]


def power(base: float | Array, exponent: Array) -> Array:
    """base^exponent for a positive base. A Python number is not rounded before: 0.999999^1e6 is right in float32."""
    if not isinstance(base, float):
        return base**exponent
    rounded = float(jnp.result_type(float).type(base))
    return rounded**exponent * jnp.exp(exponent * (math.log(base) - math.log(rounded)))


def abs_sq(x: Array, *, skip_nan: bool = False) -> Array:
    """|x|^2, real for complex x; 0 for NaN, if `skip_nan`."""
    square = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return jnp.where(square >= 0, square, 0) if skip_nan else square  # isnan would read it twice


@jax.custom_jvp
def root(x: Array) -> Array:
    """The square root of x >= 0, with derivative 0 at 0 instead of infinity.

    A number near the smallest stands in for 0: its root (2e-19 in float32) vanishes beside any eps in use, 0 / root(0)
    is 0, 1 / root(0)^2 is finite, and differentiating through a zero second moment gives numbers, not NaN.
    """
    return jnp.sqrt(jnp.maximum(x, 4 * jnp.finfo(x.dtype).tiny))


@root.defjvp
def _slope_of_root(primals, tangents):
    (x,), (dx,) = primals, tangents
    y = root(x)
    return y, jnp.where(x > 4 * jnp.finfo(x.dtype).tiny, 0.5 / y, 0) * dx


def length(square: Array) -> Array:
    """The square root of x >= 0, exactly 0 at 0, with derivative 0 there: of a sum of squares or a variance."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), square)


def shrinkage(size: Array, bound: ArrayLike) -> Array:
    """The factor at most 1 that brings a size down to a bound: 1 within it, also where both are 0 or both infinite."""
    beyond = size > bound
    return jnp.where(beyond, bound / jnp.where(beyond, size, 1), 1)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def sums_of_squares(x: Array, y: Array, skip_nan: bool = False) -> tuple[Array, Array]:
    """The sums of |x|^2 and |y|^2 over all entries, for two arrays of one shape, in one pass over both.

    On one CPU or GPU it is one reduction with two results. XLA computes x anew inside of it; on the CPU, with two
    reductions, it would write x to memory first. For a TPU two reductions fuse better.
    """
    squares = partial(abs_sq, skip_nan=skip_nan)
    if not on_one_device() or not _traced(x, y):
        return _two_sums(squares, x, y)
    one_pass, two = (partial(sums, squares) for sums in (_sums_in_one_pass, _two_sums))
    return jax.lax.platform_dependent(x, y, tpu=two, default=one_pass)


@sums_of_squares.defjvp
def _derivative(skip_nan, primals, tangents):
    def slope(x, dx):
        products = (jnp.conj(x) * dx).real
        return 2 * jnp.sum(jnp.where(jnp.isnan(x), 0, products) if skip_nan else products)

    return sums_of_squares(*primals, skip_nan), (slope(primals[0], tangents[0]), slope(primals[1], tangents[1]))


def _two_sums(squares: Callable, x: Array, y: Array) -> tuple[Array, Array]:
    return jnp.sum(squares(x)), jnp.sum(squares(y))


def _sums_in_one_pass(squares: Callable, x: Array, y: Array) -> tuple[Array, Array]:
    """Of a large array first over the last dimension.

    Entries are added one after another; where they are too many for float32, `jnp.sum` adds them.
    """
    sums = squares(x), squares(y)
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


def mean_square(x: Array, *, skip_nan: bool = False) -> Array:
    """The mean of |x|^2 over all entries; 0 for an array without entries."""
    return jnp.sum(abs_sq(x, skip_nan=skip_nan)) * (1 / max(x.size, 1))


def rms(x: Array, *, skip_nan: bool = False) -> Array:
    """The `root` of the mean square over all entries, a scalar."""
    return root(mean_square(x, skip_nan=skip_nan))

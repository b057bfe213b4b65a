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

from gradtx.clock import as_float, tick
from gradtx.collectives import Axis, parts_along, size, total
from gradtx.placement import on_one_device
from gradtx.reductions import Asking, crosses_devices, summed

LONG = 2**14  # entries beyond which adding float32 numbers one after another is too coarse
ROWS, LANES = 8, 16  # what XLA's CPU compiler adds without a loop and in vectors, even of entries that take much


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


def unbiased_mean(b1: Array, count: Array, nesterov: bool, bias_correction: bool = True):
    """The function of (mu, g) that gives Adam's m: mu without its bias, or with Nesterov's look ahead."""
    if nesterov:
        now, after = (1 / ema_mass(b1, c) if bias_correction else 1 for c in (count, tick(count)))
        of_mu, of_g = b1 * after, (1 - b1) * now
        return lambda mu, g: of_mu * mu + of_g * g
    scale = 1 / ema_mass(b1, count) if bias_correction else 1
    return lambda mu, g: mu * scale


def power(base: float | Array, exponent: Array) -> Array:
    """base^exponent for a positive base. A Python number is not rounded before: 0.999999^1e6 is right in float32."""
    if not isinstance(base, float):
        return base**exponent
    rounded = float(jnp.result_type(float).type(base))
    return rounded**exponent * jnp.exp(exponent * (math.log(base) - math.log(rounded)))


def by_parts(formula: Callable[[Array], Array], x: Array) -> Array:
    """A formula of reals; of a complex x, of its real and of its imaginary part, each for itself."""
    return jax.lax.complex(formula(x.real), formula(x.imag)) if jnp.iscomplexobj(x) else formula(x)


def abs_sq(x: Array, *, skip_nan: bool = False) -> Array:
    """|x|^2, real for complex x; 0 for NaN, if `skip_nan`."""
    square = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return jnp.where(jnp.isnan(square), 0, square) if skip_nan else square


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
    """The factor at most 1 that brings a size down to a bound: 1 within it, also where both are 0 or both infinite.

    0 where the size is NaN: of an array that holds NaN, the other entries become 0.
    """
    within = size <= bound
    return jnp.where(within, 1, jnp.where(jnp.isnan(size), 0, bound / jnp.where(within, 1, size)))


def squares_summed(xs: tuple[Array, ...], skip_nan: bool = False, axis: Axis = None) -> Asking[tuple[Array, ...]]:
    """Within a formula, `yield from`: the `sums_of_squares`, across devices together with those of the other leaves.

    Args:
      axis: the manual axis along which devices hold parts of the arrays.
    """
    if not any(map(crosses_devices, xs)):
        return tuple(total(x, axis) for x in sums_of_squares(xs, skip_nan))
    known = [jnp.where(jnp.isnan(x), 0, x) for x in xs] if skip_nan else xs
    sums = yield from summed(*((abs_sq(x), None) for x in known))
    return tuple(total(x, axis) for x in sums)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def sums_of_squares(xs: tuple[Array, ...], skip_nan: bool = False) -> tuple[Array, ...]:
    """For arrays of one shape, the sum of |x|^2 over all entries of each, in one pass over all of them.

    On one CPU or GPU it is one reduction with several results. XLA computes x anew inside of it; on the CPU, with
    several reductions, it would write x to memory first. A long one it does not make vectors of there: a large array
    is added up by eights, two bytes more for each entry, in a fraction of the time. For a TPU several reductions fuse
    better.

    Args:
      skip_nan: NaN counts as 0. On a CPU that costs a pass where an array is alone.
    """
    squares = partial(abs_sq, skip_nan=skip_nan)
    if len(xs) == 1 or not on_one_device() or not _traced(*xs):
        return _sums_each(squares, *xs)
    return _by_platform(squares, *xs)


@sums_of_squares.defjvp
def _slopes_of_sums(skip_nan, primals, tangents):
    def slope(x, dx):
        products = (jnp.conj(x) * dx).real
        return 2 * jnp.sum(jnp.where(jnp.isnan(x), 0, products) if skip_nan else products)

    return sums_of_squares(*primals, skip_nan), tuple(map(slope, *primals, *tangents))


@jax.custom_jvp
def sums(*xs: Array) -> tuple[Array, ...]:
    """For arrays of one shape, the sum over all entries of each, in one pass over all of them: as `sums_of_squares`."""
    plain = lambda x: x
    return _by_platform(plain, *xs) if on_one_device() and _traced(*xs) else _sums_each(plain, *xs)


@sums.defjvp
def _slopes_of_plain_sums(primals, tangents):
    return sums(*primals), tuple(map(jnp.sum, tangents))


def _sums_each(squares: Callable, *xs: Array) -> tuple[Array, ...]:
    return tuple(jnp.sum(squares(x)) for x in xs)


def _by_platform(squares: Callable, *xs: Array) -> tuple[Array, ...]:
    each, lanes, one_pass = (partial(way, squares) for way in (_sums_each, _sums_in_lanes, _sums_in_one_pass))
    return jax.lax.platform_dependent(*xs, tpu=each, cpu=lanes, default=one_pass)


def _sums_in_lanes(squares: Callable, *xs: Array) -> tuple[Array, ...]:
    """In one pass, 8 rows of 16 entries at a time, if an array is so large that it is worth it, and is made of such."""
    if xs[0].size <= LONG or xs[0].size % (ROWS * LANES):
        return _sums_in_one_pass(squares, *xs)
    rows = [squares(x).reshape(-1, ROWS, LANES) for x in xs]
    zeros, add = tuple(np.zeros((), x.dtype) for x in rows), lambda a, b: tuple(map(jnp.add, a, b))
    return tuple(map(jnp.sum, jax.lax.reduce(tuple(rows), zeros, add, (1,))))


def _sums_in_one_pass(squares: Callable, *xs: Array) -> tuple[Array, ...]:
    """Of large arrays first over the last dimension.

    Entries are added one after another; where they are too many for float32, `jnp.sum` adds them.
    """
    sums = tuple(map(squares, xs))
    dimensions = range(xs[0].ndim)
    for axes in (dimensions,) if xs[0].size <= LONG else (dimensions[-1:], dimensions[:-1]):
        if axes and math.prod(sums[0].shape[i] for i in axes) <= LONG:
            zeros, add = [np.zeros((), x.dtype) for x in sums], lambda a, b: tuple(map(jnp.add, a, b))
            sums = tuple(jax.lax.reduce(sums, tuple(zeros), add, axes))
    return tuple(map(jnp.sum, sums))


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


def rms(x: Array, axis: Axis = None) -> Asking[Array]:
    """Within a formula, `yield from`: the `root` of the mean square over all entries, a scalar."""
    (square,) = yield from squares_summed((x,), axis=axis)
    return root(square * (1 / max(whole_size(x, axis), 1)))


def whole_size(x: Array, axis: Axis) -> int:
    """How many entries an array has of which each device along a manual axis holds a part."""
    return x.size * size(parts_along(x, axis))

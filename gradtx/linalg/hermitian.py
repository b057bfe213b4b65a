"""Hermitian matrices: a bound of their norm, and the rotation that makes a matrix one."""

from typing import Any

import jax.numpy as jnp
from jax import Array

STEPS = {2: 1 / 8, 3: 5 / 8}  # the longest steps at which I + aR + ... is a rotation to 1e-3


def norm_bound(a: Array, rounds: int, *, precision: Any = "highest") -> Array:
    """A lower bound of the spectral norm of matrices whose transposes have their absolute values: A^H = A or -A.

        v = the longest row of A
        v <- (v A / |v A|) A            `rounds` times
        bound = |v|

    At least the length of the longest row; more rounds are power iteration. Zeros give 0.

    Args:
      a: n x d x d.
      rounds: at least 1.

    Source: Li, Stochastic Hessian fittings with Lie groups, 2024 (arXiv:2402.11858), and its code, where 32 random
      vectors around v do the same. None here, so that a run repeats itself.
    """
    largest = jnp.max(jnp.abs(a), axis=(-2, -1), keepdims=True)
    a = a / jnp.where(largest > 0, largest, 1).astype(a.dtype)  # so that no square leaves the range of numbers
    squares = jnp.sum(_abs_sq(a), axis=-1)
    v = jnp.take_along_axis(a, jnp.argmax(squares, axis=-1)[:, None, None], axis=-2)
    for _ in range(rounds):
        v = _product(v, a, precision)
        v = _product(v / _length(v).astype(v.dtype), a, precision)
    return largest[:, 0, 0] * _length(v)[:, 0, 0]  # largest is 0 where all is


def rotated_to_hermitian(q: Array, order: int, *, precision: Any = "highest") -> Array:
    """U Q, with a rotation U that brings Q nearer to a Hermitian matrix: one step of a search for the U that minimizes
    |U Q - I|.

        R = Q^H - Q, over its norm
        U = exp(a R) = I + a R + a^2 R^2 / 2            order 2
                       ... + a^3 R^3 / 8                order 3

    a maximizes the real part of the trace of U Q; it is at most 1/8, in order 3 at most 5/8. U^H U = I up to
    a^4 R^4 / 4 in order 2, and with 1/8 in place of 1/6 up to a^6 R^6 / 64 in order 3. A rotation cannot change the
    determinant's sign.

    Args:
      q: n x d x d.
      order: 2 or 3.

    Source: Li's code, as for `norm_bound`; of order 3, NVIDIA's emerging_optimizers, where the cubic's root cancels.
    """
    r = q.mT.conj() - q
    norm = norm_bound(r, 2, precision=precision)[:, None, None]
    r = r / jnp.where(norm > 0, norm, 1).astype(r.dtype)
    powers = [_product(r, q, precision)]
    for _ in range(order - 1):
        powers.append(_product(r, powers[-1], precision))
    t1, t2, *higher = (jnp.trace(x, axis1=-2, axis2=-1).real[:, None, None] for x in powers)
    if order == 2:
        a = _quotient(t1, -t2, STEPS[2]).astype(q.dtype)
        return q + a * (powers[0] + a / 2 * powers[1])
    square = jnp.square(t2) - 1.5 * t1 * higher[0]  # of t1 + a t2 + 3/8 a^2 t3 = 0, in a form without cancellation
    a = _quotient(2 * t1, jnp.where(square >= 0, jnp.sqrt(jnp.maximum(square, 0)) - t2, 0), STEPS[3]).astype(q.dtype)
    return q + a * (powers[0] + a / 2 * (powers[1] + a / 4 * powers[2]))


def _quotient(x: Array, y: Array, bound: float) -> Array:
    """x / y, and a bound where it is larger or y is not positive."""
    return jnp.where(y > 0, jnp.minimum(x / jnp.where(y > 0, y, 1), bound), bound)


def _product(a: Array, b: Array, precision: Any) -> Array:
    return jnp.matmul(a, b, precision=precision)


def _abs_sq(x: Array) -> Array:
    return jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)


def _length(v: Array) -> Array:
    """The length of each row, 1 of zeros."""
    square = jnp.sum(_abs_sq(v), axis=-1, keepdims=True)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 1)

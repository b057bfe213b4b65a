"""Systems of equations with a symmetric matrix that is known by its products with vectors alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.placement import manual_axes
from gradtx.reductions import together

Vector = Any  # a tree of real arrays


def solve_downhill(matvec: Callable, g: Vector, damping: ArrayLike, tolerance: ArrayLike, iterations: Any) -> Vector:
    """x with (A + damping I) x = g, nearly, and always with x^T g > 0, whatever the symmetric A = `matvec` is.

    It is what `conjugate_gradients` returns. Where that is not finite or x^T g is not positive, because the curvature
    c = g^T A g / |g|^2 along g itself is not above -damping, x = g / (|c| + damping), or g where that is 0.
    For g = 0, x = 0. Never NaN for a finite g.
    """
    size = jax.lax.stop_gradient(_largest(g))  # squares of g / size neither overflow nor vanish
    size = jnp.where(size > 0, size, 1)
    unit = jax.tree.map(lambda x: x / size, g)
    damped = lambda v: jax.tree.map(lambda av, x: av + damping * x, matvec(v), v)
    solution = conjugate_gradients(damped, unit, tolerance, iterations)
    usable = (_dot(solution, unit) > 0) & jnp.isfinite(_largest(solution))
    curvature = jnp.abs(_dot(unit, matvec(unit))) / jnp.maximum(_dot(unit, unit), 1) + damping  # |unit| >= 1, or 0
    divisor = jnp.where(curvature > 0, curvature, 1)
    return jax.tree.map(lambda x, u: size * jnp.where(usable, x, u / divisor), solution, unit)


def conjugate_gradients(matvec: Callable, b: Vector, tolerance: ArrayLike, iterations: Any) -> Vector:
    """x with A x = b, nearly, for a symmetric A: from x = 0 until |b - A x| <= tolerance |b|, over all arrays jointly.

    It ends early, with the x so far, after `iterations` products, and at a direction p with p^T A p <= 0: there A is
    not positive definite. If that is the first direction, b, then x = 0. Every x != 0 has x^T b > 0. The derivative is
    that of A^-1 b, solved in the same way; but where b varies along a manual axis of `jax.shard_map`, it is that of the
    iteration, and in forward mode alone.

    Written out, not `jax.scipy.sparse.linalg.cg`, which goes on where the curvature is not positive, up to NaN, and
    cannot flatten arrays with an explicit sharding. Here arrays stay where they lie.

    Source: Hestenes, Stiefel, Methods of conjugate gradients for solving linear systems, 1952; the stop of Dembo,
      Steihaug, Truncated-Newton algorithms for large-scale unconstrained optimization, 1983.
    """
    tolerance = jax.lax.stop_gradient(tolerance)

    def solve(matvec, b):
        enough = tolerance**2 * _dot(b, b)

        def unfinished(carry):
            _, _, _, square, done, positive = carry
            return positive & (square > enough) & (done < iterations)

        def step(carry):
            x, r, p, square, done, _ = carry
            ap = matvec(p)
            curvature = _dot(p, ap)
            length = square / jnp.where(curvature > 0, curvature, 1)
            positive = (curvature > 0) & (length > 0) & (length < jnp.inf)  # not where it over- or underflows
            length = jnp.where(positive, length, 0)
            x = jax.tree.map(lambda x, p: x + length * p, x, p)
            r = jax.tree.map(lambda r, ap: r - length * ap, r, ap)
            new_square = _dot(r, r)
            p = jax.tree.map(lambda r, p: r + new_square / square * p, r, p)
            return x, r, p, new_square, done + 1, positive

        square = _dot(b, b)
        like_b = lambda x: jnp.full_like(square, x, dtype=jnp.result_type(x))  # varies over devices, where b does
        start = jax.tree.map(jnp.zeros_like, b), b, b, square, like_b(np.int32(0)), like_b(True)
        return jax.lax.while_loop(unfinished, step, start)[0]

    if any(map(manual_axes, jax.tree.leaves(b))):  # there JAX does not compile the solve with its derivative
        return solve(matvec, b)
    return jax.lax.custom_linear_solve(matvec, b, solve, symmetric=True)


def _dot(x: Vector, y: Vector) -> Array:
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return functools.reduce(jnp.add, together([(a * b, None) for a, b in pairs]))


def _largest(x: Vector) -> Array:
    return functools.reduce(jnp.maximum, [jnp.max(jnp.abs(a), initial=0) for a in jax.tree.leaves(x)])

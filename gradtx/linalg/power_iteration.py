"""The largest eigenvalue of a matrix, and its eigenvector, by products with the matrix alone."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.placement import differing_like

Vector = Any  # a pytree of arrays


def power_iteration(
    matrix: ArrayLike | Callable[[Vector], Vector],
    *,
    v0: Vector = None,
    num_iters: ArrayLike = 100,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = jax.lax.Precision.HIGHEST,
    key: Any = None,
) -> tuple[Array, Vector]:
    """The eigenvalue of largest magnitude, and its eigenvector of length 1:

        v <- z / |z|,    z <- A v,    l <- <v, z>       from z = A v0, while |z - l v| > error_tolerance |l|

    It converges like the ratio of the second largest magnitude to the largest.

    Args:
      matrix: n x n and diagonalizable; or a function, v -> A v, of arrays or trees of them.
      v0: where to begin, not orthogonal to the eigenvector. None: n numbers drawn from [-1, 1]; with a function it must
        be given.
      num_iters: the most rounds. It may be known only in the program.
      error_tolerance: a relative residual at which to stop.
      precision: of the products with an array. JAX's default is below float32's on an accelerator.
      key: what v0 is drawn with, a key of `jax.random`; None is `jax.random.PRNGKey(0)`.

    Returns:
      The eigenvalue and the eigenvector. Of a matrix narrower than float32 they are float32. Where A v is 0, 0 and v.

    It has no derivative in reverse mode.
    Differs from Optax: a matrix of zeros gives 0 and a vector, not NaN; complex and bfloat16 matrices are taken.
    """
    if callable(matrix):
        if v0 is None:
            raise ValueError("`power_iteration`: v0 must be given where the matrix is a function.")
        product = matrix
    else:
        a = jnp.asarray(matrix)
        if a.ndim != 2 or a.shape[0] != a.shape[1]:
            raise ValueError(f"`power_iteration`: matrix must be square, or a function, got shape {a.shape}.")
        a = a.astype(jnp.promote_types(a.dtype, jnp.float32))
        product = lambda v: jnp.matmul(a, v, precision=precision)
        if v0 is None:
            key = jax.random.PRNGKey(0) if key is None else key
            v0 = jax.random.uniform(key, a.shape[-1:], a.real.dtype, minval=-1.0, maxval=1.0)
        v0 = differing_like(jnp.asarray(v0, a.dtype), a)

    def step(carry):
        v, z, _, count = carry
        v = _unit(z, v)
        z = product(v)
        return v, z, _dot(v, z), count + 1

    v = _unit(v0, v0)
    z = product(v)
    start = v, z, jnp.zeros_like(_dot(v, z)), jnp.zeros((), jnp.int32)
    unfinished = functools.partial(_power_iteration_cond_fun, error_tolerance, num_iters)
    v, z, eigenvalue, _ = jax.lax.while_loop(unfinished, step, start)
    return eigenvalue, _unit(z, v)


def _power_iteration_cond_fun(error_tolerance: ArrayLike, num_iters: ArrayLike, carry: tuple) -> Array:
    """Whether to go on, from v, z, the eigenvalue and the number of rounds."""
    v, z, eigenvalue, count = carry
    residual = jax.tree.map(lambda z, v: z - (eigenvalue * v).astype(z.dtype), z, v)
    return (_norm(residual) > error_tolerance * jnp.abs(eigenvalue)) & (count < num_iters)


def _unit(x: Vector, otherwise: Vector) -> Vector:
    """x / |x|, or another vector where x is 0."""
    size = _norm(x)
    scaled = lambda x, y: jnp.where(size > 0, x / jnp.where(size > 0, size, 1).astype(x.real.dtype), y)
    return jax.tree.map(scaled, x, otherwise)


def _dot(x: Vector, y: Vector) -> Array:
    """<x, y> in float32 or wider, linear in y."""
    wide = lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return _sum(jax.tree.leaves(jax.tree.map(lambda x, y: jnp.sum(jnp.conj(wide(x)) * wide(y)), x, y)))


def _norm(x: Vector) -> Array:
    return jnp.sqrt(_dot(x, x).real)


def _sum(xs: list[Array]) -> Array:
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        return functools.reduce(jnp.add, xs, jnp.zeros((), jnp.float32))

"""The inverse p-th root of a positive matrix, by matrix products alone: the coupled Newton iteration."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.linalg.power_iteration import power_iteration


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: ArrayLike,
    num_iters: ArrayLike = 100,
    ridge_epsilon: ArrayLike = 1e-6,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = jax.lax.Precision.HIGHEST,
) -> tuple[Array, Array]:
    """(A + ridge I)^(-1/p) of a symmetric matrix A without negative eigenvalues, and how far the iteration came.

        T = ((p + 1) I - M) / p,    M <- T^p M,    H <- H T         until max |M - I| <= error_tolerance
        from M = z B, H = z^(1/p) I,    z = (1 + p) / (2 |B|),    B = A + ridge I,    ridge = ridge_epsilon l

    with l the largest eigenvalue of A, at least 1e-16. Then M is 1 and H the root. It also stops where an error grows
    by more than a fifth, with the H before it.

    Args:
      matrix: n x n.
      p: a whole number of at least 1; it may be known only in the program.
      num_iters: the most rounds.
      ridge_epsilon: in units of l. In float32 a condition number beyond about 1e6 needs it.
      error_tolerance: the largest |M - I| of an entry at which to stop.
      precision: of the products. JAX's default is below float32's on an accelerator.

    Returns:
      The root, in the dtype of the matrix, computed in float32 or wider; and max |M - I| of its M.

    It has no derivative in reverse mode.
    Source: Higham, Functions of matrices, 2008, equation 7.18; Guo, Higham, 2006; Anil et al., 2020 (arXiv:2002.09018).
    Differs from Optax: p may be any whole number, where 3, 5, 6, 7 give another power there and 9 and more the 8th;
      float64 is computed in float64; the error is that of the H returned.
    """
    given = jnp.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise ValueError(f"`matrix_inverse_pth_root`: matrix must be square, got shape {given.shape}.")
    if isinstance(p, int | float) and (p < 1 or p != int(p)):
        raise ValueError(f"`matrix_inverse_pth_root`: p must be a whole number of at least 1, got {p!r}.")
    a = given.astype(jnp.promote_types(given.dtype, jnp.float32))
    kind = a.real.dtype
    largest, _ = power_iteration(a, num_iters=100, error_tolerance=1e-6, precision=precision)
    scale = jnp.maximum(largest.real.astype(kind), 1e-16)
    order = jnp.asarray(p, kind)
    unit = jnp.eye(len(a), dtype=a.dtype)
    b = a / scale + jnp.asarray(ridge_epsilon, kind) * unit  # so that no square underflows
    back = scale ** (-1 / order)
    if len(a) <= 1:
        return (b ** (-1 / order) * back).astype(given.dtype), jnp.zeros((), kind)

    def step(carry):
        count, m, h, _, error, _ = carry
        t = ((order + 1) * unit - m) / order
        new = jnp.matmul(_power(t, p, precision), m, precision=precision)
        new_error = _distance(new, unit)
        return count + 1, new, jnp.matmul(h, t, precision=precision), (h, error), new_error, new_error < error * 1.2

    def unfinished(carry):
        count, _, _, _, error, going = carry
        return (error > error_tolerance) & going & (count < num_iters)

    z = (1 + order) / (2 * jnp.linalg.norm(b))
    m, h = z * b, z ** (1 / order) * unit
    error = _distance(m, unit)
    start = jnp.zeros((), jnp.int32), m, h, (h, error), error, jnp.array(True)
    _, _, h, (before, error_before), error, good = jax.lax.while_loop(unfinished, step, start)
    h, error = jnp.where(good, h, before), jnp.where(good, error, error_before)
    return (h * back).astype(given.dtype), error


def _distance(m: Array, unit: Array) -> Array:
    return jnp.max(jnp.abs(m - unit))


def _power(x: Array, p: ArrayLike, precision: Any) -> Array:
    """x^p by squaring."""
    product = lambda x, y: jnp.matmul(x, y, precision=precision)
    if not isinstance(p, int | float):

        def step(carry):
            result, square, left = carry
            return jnp.where(left % 2 == 1, product(result, square), result), product(square, square), left // 2

        start = jnp.eye(len(x), dtype=x.dtype), x, jnp.asarray(p).astype(jnp.int32)
        return jax.lax.while_loop(lambda carry: carry[2] > 0, step, start)[0]
    result, square, left = None, x, int(p)
    while left:
        if left % 2:
            result = square if result is None else product(result, square)
        left //= 2
        square = product(square, square) if left else square
    return x if result is None else result

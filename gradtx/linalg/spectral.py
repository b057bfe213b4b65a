"""Systems of equations with a symmetric matrix, definite or not, solved in its eigenbasis."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

exactly = partial(jnp.matmul, precision="highest")  # on a GPU the default has 10 bits


@partial(jax.custom_jvp, nondiff_argnums=(3,))
def solve_symmetric(a: Array, b: Array, damping: ArrayLike, absolute: bool) -> Array:
    """(A + damping I)^-1 b for a symmetric n x n matrix A = V diag(l) V^T; if `absolute`, (|A| + damping I)^-1 b.

        x = V diag(f) V^T b,    f_i = 1 / (l_i + damping),    absolute: f_i = 1 / (|l_i| + damping)

    f_i is 0 where the denominator is within n eps max|l| of 0: nothing moves along a singular direction. An entry of
    V^T x beyond the largest number is that number. A, its eigenvalues and b must be finite.

    Derivative: the formula of Daleckii and Krein, d f(A) = V (F * V^T dA V) V^T with F_ij = (f_i - f_j) / (l_i - l_j),
    in a form without cancellation; so it is finite where eigenvalues repeat, as that of V is not. As for any
    pseudo-inverse it takes the rank as given. It cannot be differentiated again where eigenvalues repeat.
    """
    _, vectors, f = _eigenbasis(a, damping, absolute)
    return exactly(vectors, _finite(f * exactly(b, vectors)))


@solve_symmetric.defjvp
def _derivative(absolute, primals, tangents):
    (a, b, damping), (da, db, ddamping) = primals, tangents
    values, vectors, f = _eigenbasis(a, damping, absolute)
    rows, columns = f[:, None], f[None, :]
    one_is_singular = (rows == 0) != (columns == 0)
    ratio = jnp.where(one_is_singular, rows**2 + columns**2, -rows * columns)
    if absolute:  # (|l_i| - |l_j|) / (l_i - l_j): 1, -1, or between them where the signs differ
        sums = lambda x: x[:, None] + x[None, :]
        sizes = sums(jnp.abs(values))
        ratio *= jnp.where(sizes > 0, sums(values) / jnp.where(sizes > 0, sizes, 1), 0)
    parts = exactly(b, vectors)
    change = exactly(ratio * exactly(exactly(vectors.T, da), vectors), parts)
    change += f * exactly(db, vectors) - ddamping * f**2 * parts
    return exactly(vectors, _finite(f * parts)), exactly(vectors, change)


def _eigenbasis(a: Array, damping: ArrayLike, absolute: bool) -> tuple[Array, Array, Array]:
    """The eigenvalues, the eigenvectors as columns, and f."""
    values, vectors = jnp.linalg.eigh(a)
    denominator = (jnp.abs(values) if absolute else values) + damping
    limit = values.size * jnp.finfo(values.dtype).eps * jnp.max(jnp.abs(values))
    regular = jnp.abs(denominator) > limit
    return values, vectors, jnp.where(regular, 1 / jnp.where(regular, denominator, 1), 0)


def _finite(x: Array) -> Array:
    """Within the largest numbers whose combination by orthonormal vectors is finite: infinity times 0 would be NaN."""
    largest = jnp.finfo(x.dtype).max / x.size
    return jnp.clip(x, -largest, largest)

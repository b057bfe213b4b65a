"""Least squares with coefficients that are not negative."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


def nnls(A: ArrayLike, b: ArrayLike, iters: int, unroll: int | bool = 1, L: ArrayLike | None = None) -> Array:  # noqa: N803
    """The x >= 0 with the least |A x - b|, by projected gradients with Nesterov's look ahead:

        x' = max(p - (A^T A p - A^T b) / L, 0),    p = x' + (c - 1) / c' (x' - x),    c' = (1 + sqrt(1 + 4 c^2)) / 2

    from x = p = 0 and c = 0. After k rounds |A x - b|^2 is within 2 L |x*|^2 / k^2 of the least.

    Args:
      A: m x n.
      b: m, or m x k for k problems with one A.
      iters: how many rounds, at least 0.
      unroll: how many rounds of the loop are written out; see `jax.lax.scan`.
      L: at least the largest eigenvalue of A^T A. None: the smaller one of two norms of it, which are.

    Returns:
      x: n, or n x k, in the dtype of b, computed in float32 or wider. Its derivatives take L as given.

    Source: Polyak, Projected gradient method for non-negative least square, 2015; Beck, Teboulle, FISTA, 2009.
    Differs from Optax: a narrow A is computed with in float32; products are as exact as float32 on an accelerator.
    """
    a, targets = jnp.asarray(A), jnp.asarray(b)
    if a.ndim != 2 or targets.ndim not in (1, 2) or targets.shape[0] != a.shape[0]:
        raise ValueError(f"`nnls`: A must be m x n and b m or m x k, got the shapes {a.shape} and {targets.shape}.")
    if not isinstance(iters, int) or iters < 0:
        raise ValueError(f"`nnls`: iters must be a whole number of at least 0, got {iters!r}.")
    out = jnp.result_type(targets)
    kind = jnp.promote_types(jnp.promote_types(a.dtype, out), jnp.float32)
    a, targets = a.astype(kind), targets.astype(kind)
    gram, slope = (jnp.matmul(a.mT, x, precision="highest") for x in (a, targets))
    bound = jnp.asarray(_largest(gram) if L is None else L, kind)
    bound = jax.lax.stop_gradient(jnp.where(bound == 0, 1, bound))

    def step(carry, _):
        x, p, c = carry
        following = (1 + jnp.sqrt(1 + 4 * c**2)) / 2
        new = jnp.maximum(p - (jnp.matmul(gram, p, precision="highest") - slope) / bound, 0)
        return (new, new + (c - 1) / following * (new - x), following), None

    zero = jnp.zeros_like(slope)
    (x, _, _), _ = jax.lax.scan(step, (zero, zero, jnp.zeros((), kind)), length=iters, unroll=unroll)
    return x.astype(out)


def _largest(gram: Array) -> Array:
    """At least the largest eigenvalue: the smaller one of the Frobenius norm and the largest column sum."""
    columns = jnp.max(jnp.sum(jnp.abs(gram), axis=0), initial=0)
    return jnp.minimum(jnp.sqrt(jnp.sum(jnp.square(gram))), columns)

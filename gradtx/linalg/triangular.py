"""Kronecker products of upper triangular matrices: systems of equations solved side by side."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.linalg.eigenbasis import along


def divided(x: Array, factors: list[Array]) -> Array:
    """Q^-H X for the Kronecker product Q of one factor for each side: along side k, Q_k^-H X_(k).

    Args:
      x: n x d1 x d2 ...
      factors: of each side an upper triangular matrix, n x d x d, or the diagonal of one, n x d. No zero may be on the
        diagonal: results would not be finite.
    """
    for side, q in enumerate(factors):
        if q.ndim == 2:
            x = x / along(q.conj(), side, x.ndim)
            continue
        first = jnp.moveaxis(x, side + 1, 1)
        rows = first.reshape(len(x), first.shape[1], math.prod(first.shape[2:]))
        rows = jax.lax.linalg.triangular_solve(q, rows, left_side=True, transpose_a=True, conjugate_a=True)
        x = jnp.moveaxis(rows.reshape(first.shape), 1, side + 1)
    return x

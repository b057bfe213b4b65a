"""A running mean of squares kept as its means over two dimensions."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import Array

from gradtx.moments import abs_sq, again, ema, root
from gradtx.placement import zeros_of_axes
from gradtx.reductions import Asking, crosses_devices, summed

PAIRS = ("largest", "last")
Dims = tuple[int, int]  # the dimensions that are rows and columns


def factored_dims(shape: Sequence[int], least: int, pair: str = "largest") -> Dims | None:
    """The two dimensions over which an array is factored; None where the smaller of them has too few entries.

    Args:
      least: that many entries it must have.
      pair: which they are: the two "largest", of equal ones the last, the larger as columns; or the "last" two.
    """
    if len(shape) < 2:
        return None
    found = range(len(shape)) if pair == "last" else sorted(range(len(shape)), key=lambda i: shape[i])
    *_, rows, cols = found
    return (rows, cols) if min(shape[rows], shape[cols]) >= least else None


def zero_means(square: Array, dims: Dims) -> tuple[Array, Array]:
    """Zeros beside an array: its shape without the columns, and without the rows."""
    rows, cols = dims
    left = lambda gone: zeros_of_axes(square, [(i,) for i in range(square.ndim) if i != gone])
    return left(cols), left(rows)


def over_factored_root(
    x: Array, v_row: Array, v_col: Array, dims: Dims, decay: Array, epsilon: Array, of: Array | None = None
) -> Asking[tuple[Array, Array, Array]]:
    """Within a formula, `yield from`: x / sqrt(v), and the next two means of which v is made.

        row = decay row + (1 - decay) mean_columns(|x|^2 + epsilon),    col likewise,    v = row col / mean(row)

    Args:
      of: what is divided by the root, in place of x.
    """
    rows, cols = dims
    (x_again,) = again(x)
    over_cols, over_rows = yield from summed((abs_sq(x), cols), (abs_sq(x_again), rows))
    v_row = ema(v_row, over_cols / x.shape[cols] + epsilon, decay)
    v_col = ema(v_col, over_rows / x.shape[rows] + epsilon, decay)
    row, col = jnp.expand_dims(v_row, cols), jnp.expand_dims(v_col, rows)
    # mean(row) = mean(col): of the one that is whole on every device, if one is
    means, axis = (col, cols) if crosses_devices(row, rows) else (row, rows)
    (total,) = yield from summed((means, axis))
    mean = jnp.expand_dims(total / means.shape[axis], axis)
    return (x if of is None else of) * (1 / root(row)) * (root(mean) / root(col)), v_row, v_col

"""Labels that leave some probability to every class."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import loss
from gradtx.losses.softmax import Axes


@loss("labels")
def smooth_labels(labels: ArrayLike, alpha: ArrayLike, *, axis: Axes = -1, where: ArrayLike | None = None) -> Array:
    """(1 - alpha) y + alpha / n.

    Args:
      labels: distributions y, floating, (..., n), such as `jax.nn.one_hot` gives.
      alpha: in [0, 1]; 0 changes nothing.
      axis: the axis or axes of the classes; None: all.
      where: a mask of the classes that exist: n is their number. With a mask of none n is 1. Other labels are smoothed,
        too: mask them in the loss.

    Source: Szegedy et al., Rethinking the inception architecture, 2016 (arXiv:1512.00567), section 7; Müller et al.,
    When does label smoothing help?, 2019 (arXiv:1906.02629).
    """
    y = jnp.asarray(labels)
    n = jnp.size(y, axis) if where is None else jnp.sum(jnp.asarray(where).astype(bool), axis, keepdims=True)
    return jnp.subtract(1, alpha) * y + jnp.divide(alpha, jnp.maximum(n, 1).astype(y.dtype))

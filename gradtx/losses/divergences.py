"""Divergences of Kullback and Leibler: of a distribution of targets from a predicted one."""

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import keep, loss, times
from gradtx.losses.softmax import Axes


@loss("log_predictions", "targets")
def kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """sum_j t_j (log t_j - log q_j). A term with t = 0 is 0, its slope by t that of -t log q.

    Args:
      log_predictions: log q, floating, (..., n), such as `jax.nn.log_softmax` gives.
      targets: t, not negative, of a shape that broadcasts with them. (`kl_divergence_with_log_targets` takes log t.)
      axis: the axis or axes to sum over; None: all.
      where: a mask of the terms that count. It broadcasts.

    Optax's has the slope NaN by t at t = 0, and is NaN where q is 0 too.

    Source: Kullback and Leibler, On information and sufficiency, 1951.
    """
    log_q, t = keep(log_predictions, where), keep(targets, where)
    log_t = jnp.where(t == 0, 0, jnp.log(jnp.where(t == 0, 1, t)))
    return jnp.sum(times(t, log_t - log_q), axis=axis)


@loss("log_predictions", "log_targets")
def kl_divergence_with_log_targets(
    log_predictions: ArrayLike, log_targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """sum_j t_j (log t_j - log q_j), of log t. A term with log t = -inf is 0; Optax's is NaN.

    Other arguments: `kl_divergence`.
    """
    log_q, log_t = keep(log_predictions, where), keep(log_targets, where, -jnp.inf)
    finite = jnp.where(log_t == -jnp.inf, 0, log_t)
    return jnp.sum(times(jnp.exp(log_t), finite - log_q), axis=axis)


@loss("log_predictions", "targets")
def generalized_kl_divergence(
    log_predictions: ArrayLike, targets: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """sum_j t_j (log t_j - log q_j) - t_j + q_j: also of measures that do not sum to 1. It is 0 for t = q alone.

    Arguments: `kl_divergence`.

    Source: Bregman, The relaxation method of finding the common point of convex sets, 1967; Boyd and Vandenberghe,
    Convex optimization, 2004, page 90.
    """
    excess = keep(jnp.exp(keep(log_predictions, where)) - keep(targets, where), where)
    return kl_divergence(log_predictions, targets, axis=axis, where=where) + jnp.sum(excess, axis=axis)

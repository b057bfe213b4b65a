"""Losses of scores that order a list."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import keep, loss
from gradtx.losses.softmax import cross_entropy, masked


@loss("logits", like="logits")
def ranking_softmax_loss(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    reduce_fn: Callable[..., ArrayLike] | None = jnp.mean,
) -> Array:
    """-sum_i w_i y_i log softmax(s)_i over each list, then the mean over lists.

    Args:
      logits: scores s, floating, (..., n).
      labels: relevances y, not negative, (..., n).
      where: (..., n), the items that exist. Others have no influence, and a list of none does not count.
      weights: w (..., n), not negative; None: 1.
      reduce_fn: called as `jnp.mean` or `jnp.sum`, with `where=`, a mask of the lists that count. None gives the loss
        of every list, 0 where it does not count. The mean over no list is 0.

    Source: Cao et al., Learning to rank: from pairwise approach to listwise approach, 2007.
    """
    s = jnp.asarray(logits)
    y = jnp.asarray(labels).astype(s.dtype)
    mask = None if where is None else jnp.asarray(where).astype(bool)
    y = keep(y if weights is None else y * weights, mask)
    found = cross_entropy(*jnp.broadcast_arrays(masked(s, mask, -1), y), -1)
    lists = None if mask is None else jnp.any(mask, axis=-1)
    if reduce_fn is None:
        return keep(found, lists)
    if reduce_fn is not jnp.mean or lists is None:
        return jnp.asarray(reduce_fn(found, where=lists))
    lists = jnp.broadcast_to(lists, found.shape)
    return jnp.sum(keep(found, lists)) / jnp.maximum(jnp.sum(lists), 1)

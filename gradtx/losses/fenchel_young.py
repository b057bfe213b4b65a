"""Losses made from the maximum that a prediction attains."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import loss, times


def make_fenchel_young_loss(max_fun: Callable[..., Any]) -> Callable[..., Array]:
    """The loss (scores, targets, *args, **kwargs) -> max_fun(scores, *args, **kwargs) - <targets, scores>.

    It works on the last axis: of scores (..., n) and targets that broadcast with them. Its slope is the prediction less
    the targets, the prediction being the slope of `max_fun`. A score of minus infinity with target 0 counts as 0.
    `jax.nn.logsumexp` makes the cross entropy of softmax.

    Args:
      max_fun: of a vector of scores (n), max over y of <scores, y> - Omega(y), for some Omega: a number. It is called
        with one vector at a time; further arguments of the loss go to it as they are.

    Source: Blondel, Martins and Niculae, Learning with Fenchel-Young losses, 2020 (arXiv:1901.02324).
    """

    @loss()
    def fenchel_young_loss(scores: ArrayLike, targets: ArrayLike, *args: Any, **kwargs: Any) -> Array:
        of_a_vector = jnp.vectorize(lambda scores: max_fun(scores, *args, **kwargs), signature="(n)->()")
        inner_product = jnp.sum(times(jnp.asarray(targets), jnp.asarray(scores)), axis=-1)
        return of_a_vector(scores) - inner_product

    return fenchel_young_loss

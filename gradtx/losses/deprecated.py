"""Older names of losses, which warn as Optax's do."""

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec

from jax import Array

from gradtx.losses.classification import sigmoid_binary_cross_entropy, softmax_cross_entropy_with_integer_labels
from gradtx.losses.divergences import generalized_kl_divergence
from gradtx.losses.margins import sparsemax_loss

P = ParamSpec("P")


def _older(name: str, function: Callable[P, Array]) -> Callable[P, Array]:
    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> Array:
        new = getattr(function, "__name__", "")
        warnings.warn(f"The function {name} is deprecated. Please use {new} instead.", DeprecationWarning, stacklevel=2)
        return function(*args, **kwargs)

    call.__name__ = call.__qualname__ = name
    call.__doc__ = f"The older name of `{getattr(function, '__name__', '')}`, which warns."
    return call


convex_kl_divergence = _older("convex_kl_divergence", generalized_kl_divergence)
binary_logistic_loss = _older("binary_logistic_loss", sigmoid_binary_cross_entropy)
multiclass_logistic_loss = _older("multiclass_logistic_loss", softmax_cross_entropy_with_integer_labels)
binary_sparsemax_loss = _older("binary_sparsemax_loss", sparsemax_loss)

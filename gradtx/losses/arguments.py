"""What every loss does with its arguments: they are checked, computed wide, masked."""

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise

P = ParamSpec("P")
NUMBERS = (jax.Array, np.ndarray, np.generic, float)
MAY_BE_STATIC = (np.integer, np.bool_)  # an axis, a flag


def loss(*floating: str, like: str | None = None) -> Callable[[Callable[P, Array]], Callable[P, Array]]:
    """A decorator: the loss is computed in float32 or wider, and rounded once, at its end.

    Arrays come in as JAX arrays. The result has the dtype that the arguments promote to, as if nothing were widened.

    Args:
      floating: the names of arguments that must be floating: others are a TypeError.
      like: the name of the argument that alone decides the dtype of the result.
    """

    def decorate(function: Callable[P, Array]) -> Callable[P, Array]:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> Array:
            bound = signature.bind(*args, **kwargs)
            given = bound.arguments
            for name in floating:
                must_be(jnp.floating, function.__name__, **{name: given.get(name)})
            numbers = {
                name: x for name, x in given.items() if isinstance(x, NUMBERS) and not isinstance(x, MAY_BE_STATIC)
            }
            arrays = {name: jnp.asarray(x) for name, x in numbers.items() if not isinstance(x, float)}
            given |= {name: leafwise.widen(x) for name, x in arrays.items()}
            result = function(*bound.args, **bound.kwargs)
            if all(leafwise.wide_dtype(x) == x.dtype for x in arrays.values()):
                return result
            dtype = jnp.result_type(*[x for name, x in numbers.items() if like in (None, name)])
            return result.astype(dtype)

        return call

    return decorate


def must_be(kind: Any, function: str, **arguments: Any) -> None:
    """Raises a TypeError where an argument is of another kind of number, such as `jnp.floating`."""
    for name, x in arguments.items():
        if x is not None and not jnp.issubdtype(dtype := jnp.result_type(x), kind):
            raise TypeError(f"`{function}`: {name} must be {kind.__name__}, got {dtype.name}.")


def must_fit(function: str, **arguments: Any) -> None:
    """Raises a ValueError where two arguments have different shapes."""
    (one, x), (other, y) = arguments.items()
    if jnp.shape(x) != jnp.shape(y):
        raise ValueError(
            f"`{function}`: {one} has shape {jnp.shape(x)} and {other} {jnp.shape(y)}: they must be equal."
        )


def must_have_rank(rank: int, function: str, **arguments: Any) -> None:
    """Raises a ValueError where an argument has another number of dimensions."""
    for name, x in arguments.items():
        if jnp.ndim(x) != rank:
            raise ValueError(f"`{function}`: {name} must have {rank} dimensions, got shape {jnp.shape(x)}.")


def keep(x: ArrayLike, where: ArrayLike | None, fill: float = 0) -> Array:
    """`x` where the mask holds, else `fill`: what is masked has no influence, not even if it is NaN."""
    return jnp.asarray(x) if where is None else jnp.where(where, x, fill)


def times(weight: ArrayLike, value: Array) -> Array:
    """weight * value, and 0 where the weight is 0 and the value infinite, as in 0 log 0 = 0; its slope is 0 there."""
    return jnp.multiply(weight, jnp.where(jnp.equal(weight, 0) & jnp.isinf(value), 0, value))

"""Time: the count of updates made, and hyperparameters that may depend on it."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

Hyperparameter: TypeAlias = ArrayLike | Callable[[Any], ArrayLike]  # a number, or a schedule: step -> number


class ClockState(NamedTuple):
    """The state of a transformation that remembers nothing but the time."""

    count: Array  # int32 scalar: updates made so far


def start() -> Array:
    """Count zero: no update has been made yet."""
    return jnp.zeros((), jnp.int32)


def tick(count: Array) -> Array:
    """The next count; stays at the largest int32 rather than wrapping."""
    return jnp.minimum(count, jnp.iinfo(jnp.int32).max - 1) + 1


def at(count: Array, *values: Hyperparameter) -> tuple[Any, ...]:
    """Each hyperparameter's value at `count`: a Python float, or a floating array, float32 or wider.

    The only place where a schedule is called. The first update is made at count 0. A number is rounded once, to the
    precision of the arrays that it will meet, so that a decay and 1 minus that decay are made of one number; it stays a
    Python number, which costs the compiled program nothing and takes the dtype of those arrays.
    """
    rounded = jnp.result_type(float).type
    return tuple(float(rounded(v)) if isinstance(v, (int, float)) else _array_at(count, v) for v in values)


def arrays_at(count: Array, *values: Hyperparameter) -> tuple[Array, ...]:
    """As `at`, for a schedule's own numbers: all are arrays, those made of Python numbers weakly typed."""
    return tuple(_array_at(count, v) for v in values)


def _array_at(count: Array, x: Hyperparameter) -> Array:
    x = jnp.asarray(x(count) if callable(x) else x)
    if jnp.issubdtype(x.dtype, jnp.floating):
        return x if jnp.finfo(x.dtype).bits >= 32 else x.astype(jnp.float32)
    return x * 1.0

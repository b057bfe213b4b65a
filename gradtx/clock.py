"""Time: the count of updates made, and hyperparameters that may depend on it."""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.interval import Interval
from gradtx.value import Value, state

Hyperparameter: TypeAlias = ArrayLike | Callable[[Any], ArrayLike]  # a number, or a schedule: step -> number


@state
class ClockState(NamedTuple):
    """The state of a transformation that remembers nothing but the time."""

    count: Array  # int32 scalar: updates made so far


def start() -> Array:
    """Count zero: no update has been made yet."""
    return jnp.zeros((), jnp.int32)


def tick(count: Any) -> Any:
    """The next count; stays at the largest int32 rather than wrapping. None, where no time is kept, stays None.

    Raises:
      ValueError: the count is no scalar, as in a stacked state outside of `jax.vmap`: it would be broadcast.
    """
    if getattr(count, "ndim", 0):
        raise ValueError(
            f"the state's count has shape {jnp.shape(count)}, and must be one number: a stacked state is updated under "
            "`jax.vmap`, or by `tuning.run_population`."
        )
    return None if count is None else jnp.minimum(count, jnp.iinfo(jnp.int32).max - 1) + 1


_now: ContextVar[Array | None] = ContextVar("now", default=None)


@contextmanager
def time(count: Array) -> Iterator[None]:
    """Within it, it is the time of what keeps none of its own: a chain's links, what is accumulated for."""
    token = _now.set(count)
    try:
        yield
    finally:
        _now.reset(token)


def now() -> Array | None:
    """The count of what stands around, for a formula whose state has none; None alone, where nothing keeps time.

    For `at`, which then takes numbers and no schedules.
    """
    return _now.get()


def as_float(count: ArrayLike) -> Array:
    """A count as a floating number that takes the dtype of what it meets, as a Python number does."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.asarray(count) * 1.0


def at(count: Array | None, *values: Hyperparameter) -> tuple[Any, ...]:
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


def held(owner: Value, *, scalars: bool) -> Any:
    """The same value with its numbers held to the intervals of their fields: what a formula sees as `self`.

    A Python number was checked when the value was built. A traced array's entries and what a schedule returns are known
    only in the program, where nothing can be raised: they count as the nearest number inside.

    Args:
      scalars: whether each must be one number, which a formula broadcasts.

    Raises:
      ValueError: it must be, and is not; when a schedule is called. The field is named.
    """

    def hold(name: str, interval: Interval, x: Any) -> Any:
        if isinstance(x, (int, float)):
            return x if isinstance(x, int) else interval.nearest(x)
        if callable(x):
            return lambda count: kept(f"the schedule {name} returned", interval, x(timely(name, count)))
        return kept(f"{name} has", interval, x)

    def timely(name: str, count: Array | None) -> Array:
        if count is None:
            raise ValueError(
                f"`{type(owner).__name__}`: {name} is a schedule, and this transformation keeps no time when it stands "
                f"alone: put it in a chain, `chain({type(owner).__name__}(...))`."
            )
        return count

    def kept(what: str, interval: Interval, x: Any) -> Array:
        try:
            x = _wide(jnp.asarray(x))
        except TypeError as error:
            raise TypeError(f"`{type(owner).__name__}`: {what} {x!r}, which is no number.") from error
        if scalars and jnp.ndim(x):
            raise ValueError(
                f"`{type(owner).__name__}`: {what} shape {jnp.shape(x)}, and must be one number. A stacked population "
                "trains under `jax.vmap`, or by `tuning.run_population`."
            )
        return interval.nearest(x)

    changed = {}
    for field in dataclasses.fields(owner):  # pyright: ignore[reportArgumentType]
        x = getattr(owner, field.name)
        if (interval := field.metadata.get("interval")) is not None and x is not None:
            changed[field.name] = hold(field.name, interval, x)
    if not changed:
        return owner
    now = object.__new__(type(owner))
    now.__dict__.update(owner.__dict__ | changed)
    return now


def _array_at(count: Array | None, x: Hyperparameter) -> Array:
    x = _wide(jnp.asarray(x(count) if callable(x) else x))
    return x if jnp.issubdtype(x.dtype, jnp.floating) else as_float(x)


def _wide(x: Array) -> Array:
    return x.astype(jnp.float32) if jnp.issubdtype(x.dtype, jnp.floating) and jnp.finfo(x.dtype).bits < 32 else x

"""Going from one number to another: the arithmetic of every schedule that has an end."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import jax.numpy as jnp
from jax import Array

from gradtx.clock import as_float
from gradtx.schedules.schedule import Steps


def remaining(count: Array, steps: Steps, begin: Steps = 0) -> Array:
    """What is left of a transition: 1 until `begin`, then 1/steps less at every step, 0 from `begin + steps` on.

    A transition of no steps is over at `begin`.
    """
    steps, elapsed = jnp.asarray(steps), count - begin  # as integers: exact however late it begins
    elapsed = as_float(elapsed) if jnp.issubdtype(steps.dtype, jnp.floating) else elapsed
    left = steps - jnp.clip(elapsed, 0, steps)
    share = jnp.minimum(as_float(left) / as_float(jnp.maximum(steps, 1)), 1.0)
    return jnp.where(elapsed < jnp.minimum(steps, 1), 1.0, share)  # XLA multiplies by 1/steps, and 61 * (1/61) is not 1


def between(start: Array, end: Array, left: Array) -> Array:
    """`start` where `left` is 1 and `end` where it is 0, both exactly, and on the line between them elsewhere.

    Counted from the nearer of the two, so that rounding never leaves the interval.
    """
    drop = start - end
    return jnp.where(left < 0.5, end + drop * left, start - drop * (1 - left))


def half_cosine(left: Array) -> Array:
    """(1 + cos(pi f)) / 2, where f = 1 - left is what is done; as a squared sine, which is exact at both ends."""
    return jnp.sin(jnp.pi / 2 * left) ** 2


def exponential(left: Array) -> Array:
    """(e^left - 1) / (e - 1): an exponential decay that arrives."""
    return jnp.where(left < 1, jnp.expm1(left) / math.expm1(1), 1.0)


# What is left of a cooldown, by its name in papers, from what is left of its time, x = 1 - left being done.
COOLDOWNS = {
    "1-sqrt": lambda left: left / (1 + jnp.sqrt(1 - left)),  # 1 - sqrt(x), exact to the end
    "linear": lambda left: left,
    "cosine": half_cosine,
    "square": lambda left: left * (2 - left),  # 1 - x^2
    "exponential": exponential,
}


def share(steps: Steps, fraction: Any) -> Any:
    """The whole steps in a fraction of `steps`. A millionth more, or 0.29 of 100 would be 28 by a rounding error."""
    steps = jnp.asarray(steps)
    return jnp.minimum(jnp.floor(fraction * as_float(steps) * (1 + 1e-6)).astype(steps.dtype), steps)


def through(
    count: Array,
    start: Array,
    points: Iterable[tuple[Steps, Array]],
    shape: Callable[[Array], Array] | None = None,
) -> Array:
    """From `start` at count 0 through each (step, value) in turn, constant after the last; by lines if no `shape`."""
    begin, x = 0, jnp.broadcast_to(start, jnp.broadcast_shapes(start.shape, count.shape))
    for step, value in points:
        left = remaining(count, step - begin, begin)
        x = between(x, value, shape(left) if shape else left)
        begin = step
    return x

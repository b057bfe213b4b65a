"""What a schedule is, and the simplest one."""

from typing import Any, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.clock import Hyperparameter, arrays_at, held
from gradtx.value import Value, number, value

Steps: TypeAlias = Any  # a whole number of steps: an int, or an int array
STEPS = "[0, 2147483647]"  # what an int32 count can reach
POSITIVE_STEPS = "[1, 2147483647]"


class Schedule(Value):
    """A function from the number of updates made to a number, and an immutable value.

    `schedule(count)` is the value at `count`: a Python or NumPy integer or an array, 0 at the first update. An array of
    counts gives an array of values, `schedule(jnp.arange(100))` a curve.

    A schedule is a pytree of its numbers: through `jit` as an argument, another peak or another length compiles
    nothing; stacked, it goes through `vmap`; its numbers have gradients (steps are integers and have none:
    `jax.grad(..., allow_int=True)`). It is equal to, hashes like, and prints as, the code that builds it. Values made
    of Python floats are weakly typed: they take the dtype of the arrays that they meet. A number of a schedule may
    itself be a schedule, read at the same count: `linear_schedule(0.0, schedule, 100)` fades another one in.

    To write one, a plain function of the count will do. To make it a value, subclass, decorate with `@value`, and write
    `value_at`.
    """

    def __call__(self, count: ArrayLike) -> Array:
        return held(self, scalars=False).value_at(_signed(count))

    def value_at(self, count: Array) -> Array:
        """The formula, for a count that is an array. `self` holds its numbers within their intervals."""
        raise TypeError(f"`{type(self).__name__}` has no `value_at`: write one in the class.")


def _signed(count: ArrayLike) -> Array:
    """A count as an int32, or an int64 where JAX has them; a count beyond is the largest. A floating one stays."""
    widest = jnp.iinfo(jnp.result_type(int))
    if isinstance(count, (int, np.integer, np.ndarray)) and (known := np.asarray(count)).dtype.kind in "iuO":
        known = known.astype(object)  # Python's integers, which have no largest
        return jnp.asarray(np.clip(known, int(widest.min), int(widest.max)), widest.dtype)
    count = jnp.asarray(count)
    if not jnp.issubdtype(count.dtype, jnp.integer):
        return count
    return jnp.minimum(count, min(int(widest.max), int(jnp.iinfo(count.dtype).max))).astype(widest.dtype)


def following(count: Array) -> Array:
    """The count after; the largest stays."""
    if not jnp.issubdtype(count.dtype, jnp.integer):
        return count + 1
    return jnp.minimum(count, jnp.iinfo(count.dtype).max - 1) + 1


@value
class constant_schedule(Schedule):
    """Returns the same number at every count.

    Args:
      value: any finite number.
    """

    value: Hyperparameter = number()

    def value_at(self, count):
        (x,) = arrays_at(count, self.value)
        return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, count.shape))

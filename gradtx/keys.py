"""Random keys, in the forms that users give: an int, a key of `jax.random`, or the raw words of one."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def checked(owner: str, name: str, key: Any) -> Any:
    """The key as it was given; raises where it is none."""
    if isinstance(key, bool) or not (hasattr(key, "dtype") or isinstance(key, int)):
        raise TypeError(f"`{owner}`: {name} must be an int or a key of `jax.random`, got {key!r}.")
    return key


def typed(key: Any) -> Array:
    """The key as a key of `jax.random`."""
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key) if jnp.ndim(key) > 0 else jax.random.key(key)

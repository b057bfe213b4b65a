"""Random keys, in the forms that users give: an int, a key of `jax.random`, or the raw words of one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.recipe import Recipe
from gradtx.value import Value, known, part, static, value


@value
class Key(Value):
    """A key of `jax.random` as a value: its words, and how bits are made from them. `gradtx` makes it from a key."""

    words: tuple[int, ...] = part()  # as int32, which a jit argument takes
    impl: str = static()

    def typed(self) -> Array:
        """The key of `jax.random`."""
        words = jnp.stack([jnp.asarray(word, jnp.int32) for word in self.words])
        return jax.random.wrap_key_data(jax.lax.bitcast_convert_type(words, jnp.uint32), impl=self.impl)

    def recipe(self) -> Any:
        return Recipe("keys.Key", (), {"words": self.words, "impl": self.impl})


def checked(owner: str, name: str, key: Any) -> Any:
    """The key as a value: an int, or a `Key`; one that is traced, or several stacked, as they are.

    Raises:
      TypeError: it is no key.
    """
    if isinstance(key, bool) or not (isinstance(key, (Key, int)) or hasattr(key, "dtype")):
        raise TypeError(f"`{owner}`: {name} must be an int or a key of `jax.random`, got {key!r}.")
    if isinstance(key, (Key, int)) or not known(key):
        return key
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if jnp.issubdtype(key.dtype, jnp.integer) and jnp.ndim(key) == 0:
        return int(key)
    words = np.asarray(jax.device_get(jax.random.key_data(key) if is_typed else key))
    if words.ndim != 1 or words.dtype != np.uint32:
        return key
    return Key(tuple(words.view(np.int32).tolist()), impl=str(jax.random.key_impl(key)))  # of words: JAX's default


def checked_or_none(owner: str, name: str, key: Any) -> Any:
    """As `checked`, for a key that may be missing as long as it is not used."""
    return None if key is None else checked(owner, name, key)


def take_seed(owner: Any) -> None:
    """For a value whose field `seed` is an older name of its field `key`: moves what was given to the newer one.

    Raises:
      ValueError: both are given.
    """
    if owner.seed is not None:
        if owner.key is not None:
            raise ValueError(f"`{type(owner).__name__}`: seed is an older name of key, and both are given.")
        object.__setattr__(owner, "key", owner.seed)
        object.__setattr__(owner, "seed", None)


def typed(key: Any) -> Array:
    """The key as a key of `jax.random`."""
    if isinstance(key, Key):
        return key.typed()
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    return jax.random.wrap_key_data(key) if jnp.ndim(key) > 0 else jax.random.key(key)

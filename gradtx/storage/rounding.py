"""From float32 to bfloat16: to the nearest, or to one of the two neighbours by chance, which keeps the mean.

XLA may take a rounding to bfloat16 and back for the identity; `jax.lax.reduce_precision` and integers it leaves alone.
"""

import jax
import jax.numpy as jnp
from jax import Array

LOW = jnp.uint32(0xFFFF)  # the bits of a float32 that a bfloat16 has not


def nearest(x: Array) -> Array:
    """The nearest bfloat16 of each entry, ties to even, as float32."""
    return jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)


def stochastic(x: Array, key: Array) -> Array:
    """One of the two bfloat16 next to each entry, as float32, whose mean over keys is the entry.

    The entry is cut to its first 16 bits, and the next larger magnitude taken with the probability that the bits cut
    off are of a whole step: a random number of 16 bits is added to them, and carries. What a bfloat16 holds stays;
    infinity and NaN too. A magnitude above the largest bfloat16 may become infinite, as by the nearest.

    Args:
      x: float32.
      key: of `jax.random`.
    """
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32)
    chance = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    rounded = jax.lax.bitcast_convert_type((bits + chance) & ~LOW, jnp.float32)
    return jnp.where(jnp.isfinite(x), rounded, x)


def half_step(x: Array) -> Array:
    """Half of the distance from a bfloat16, given as float32, to the next one of its exponent."""
    exponent = (jax.lax.bitcast_convert_type(x, jnp.int32) >> 23) & 0xFF
    return jax.lax.bitcast_convert_type(jnp.maximum(exponent - 8, 0) << 23, jnp.float32)

"""Eight bits an entry as floating numbers, and a scale for each block."""

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.storage.blockwise import Blockwise, shares
from gradtx.value import value

LARGEST = 448.0  # of float8_e4m3fn
SMALLEST = 2.0**-9


@value
class float8(Blockwise):
    """1 byte an entry and 4 a block: a float8_e4m3fn times a power of two, by which the block's largest fits.

        signed:    x = s f
        squares:   x = (s f)^2            of what is not negative; never 0 for what is not 0

    Relative error at most 2^-4 down to 1/14,336 of the block's largest magnitude. What hardware with such numbers reads
    in one instruction; `int8` has a third of the error in Adam's direction on Gaussian entries.

    Args: `int8`.
    """

    @property
    def code_dtype(self):
        return jnp.float8_e4m3fn

    def to_codes(self, x):
        scale = _power_above(jnp.max(jnp.abs(x), -1) / LARGEST)
        share = shares(x, scale)
        return share if self.book == "signed" else jnp.where(x > 0, jnp.maximum(share, SMALLEST), share), scale

    def from_codes(self, codes):
        return codes


def _power_above(x: Array) -> Array:
    """The smallest power of two that is not below x; 0 of 0."""
    mantissa, exponent = jnp.frexp(x)
    power = jnp.ldexp(jnp.ones_like(x), exponent - (mantissa == 0.5).astype(exponent.dtype))
    return jnp.where(x > 0, power, jax.lax.select(x == 0, jnp.zeros_like(x), x))  # NaN stays

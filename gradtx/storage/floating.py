"""Eight bits an entry as floating numbers, and a scale for each block."""

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.moments import length
from gradtx.storage import blocks
from gradtx.storage.codec import Codec
from gradtx.value import static, value, whole

LARGEST = 448.0  # of float8_e4m3fn
SMALLEST = 2.0**-9


@value
class float8(Codec):
    """1 byte an entry and 4 a block: a float8_e4m3fn times a power of two, by which the block's largest fits.

        signed:    x = s f
        squares:   x = (s f)^2            of what is not negative; never 0 for what is not 0

    Relative error at most 2^-4 down to 1/28,672 of the block's largest magnitude. What hardware with such numbers reads
    in one instruction; `int8` has half of the error on Gaussian entries.

    Args: `int8`.
    """

    book: str = static(default="signed", one_of=("signed", "squares"))
    block: int = whole(default=128, within="[2, inf)")

    @property
    def form(self):
        return f"float8_{self.book}_{self.block}"

    def stores(self, x):
        return super().stores(x) and blocks.shrink(x, self.block)

    def zeros(self, x):
        return jnp.zeros_like(x, jnp.float8_e4m3fn), blocks.scales(x, self.block)

    def encode(self, x, key):
        divided = blocks.divided(x if self.book == "signed" else length(jnp.maximum(x, 0)), self.block)
        scale = _power_above(jnp.max(jnp.abs(divided), -1) / LARGEST)
        share = divided / jnp.where(scale == 0, 1, scale)[..., None]
        if self.book == "squares":
            share = jnp.where(divided > 0, jnp.maximum(share, SMALLEST), share)
        return blocks.joined(share.astype(jnp.float8_e4m3fn), x), scale

    def decode(self, parts):
        codes, scale = parts
        found = blocks.divided(codes.astype(jnp.float32), self.block) * scale[..., None]
        return blocks.joined(found if self.book == "signed" else jnp.square(found), codes)


def _power_above(x: Array) -> Array:
    """The smallest power of two that is not below x; 0 of 0."""
    mantissa, exponent = jnp.frexp(x)
    power = jnp.ldexp(jnp.ones_like(x), exponent - (mantissa == 0.5).astype(exponent.dtype))
    return jnp.where(x > 0, power, jax.lax.select(x == 0, jnp.zeros_like(x), x))  # NaN stays

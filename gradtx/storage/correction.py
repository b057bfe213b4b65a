"""bfloat16 with its rounding error in 8 more bits."""

import jax.numpy as jnp
from jax import lax

from gradtx.storage import rounding
from gradtx.storage.codec import Codec
from gradtx.value import value

CODES = 127  # int8 from -127 to 127


@value
class corrected(Codec):
    """3 bytes an entry: the nearest bfloat16 b, and where the entry lies between the halves of the steps to its sides.

        x = b + h c / 127        h: half of b's distance to the next bfloat16; c: int8

    So an entry has 16 bits of precision, relative error at most 2^-16, in the range of float32; below 2^-119 it is b.

    Source: the correction of weights in FlashOptim, 2026 (arXiv:2602.23349), rounded to the nearest.
    """

    @property
    def form(self):
        return "bfloat16_corrected"

    def zeros(self, x):
        return jnp.zeros_like(x, jnp.bfloat16), jnp.zeros_like(x, jnp.int8)

    def encode(self, x, key):
        b = rounding.nearest(x)
        h = rounding.half_step(b)
        rest = jnp.where((h > 0) & jnp.isfinite(b), (x - b) / jnp.where(h > 0, h, 1), 0)
        return b.astype(jnp.bfloat16), jnp.round(CODES * jnp.clip(rest, -1, 1)).astype(jnp.int8)

    def decode(self, parts):
        b, c = (lax.convert_element_type(part, jnp.float32) for part in parts)
        return b + rounding.half_step(b) * (c / CODES)

"""bfloat16: half of the bytes, the range of float32, 8 bits of precision."""

import jax
import jax.numpy as jnp

from gradtx.storage import rounding
from gradtx.storage.codec import Codec
from gradtx.value import static, value


@value
class bfloat16(Codec):
    """2 bytes an entry, relative error at most 2^-8 (rounded by chance) or 2^-9.

    Args:
      rounding: "stochastic", to one of the two neighbours, the mean of which is the entry; or "nearest". Averages that
        move by less than 2^-9 of themselves per step (a decay of 0.999) stand still when rounded to the nearest.
    """

    rounding: str = static(default="stochastic", one_of=("stochastic", "nearest"))

    @property
    def form(self):
        return "bfloat16"

    @property
    def rounds_by_chance(self):
        return self.rounding == "stochastic"

    def stores(self, x):
        return x.dtype == jnp.float32

    def zeros(self, x):
        return (jnp.zeros_like(x, jnp.bfloat16),)

    def encode(self, x, key):
        if self.rounding == "stochastic":
            assert key is not None
            x = rounding.stochastic(x, key)
        return (x.astype(jnp.bfloat16),)

    def decode(self, parts):
        return jax.lax.convert_element_type(parts[0], jnp.float32)

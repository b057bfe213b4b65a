"""What codecs of blocks share: a code for each entry, a scale for each block of the last axis."""

import jax.numpy as jnp
from jax import Array

from gradtx.moments import length
from gradtx.storage import blocks
from gradtx.storage.codec import Codec
from gradtx.value import static, value, whole


@value
class Blockwise(Codec):
    """Base of codecs of blocks: they say what the codes of a block are, here is where blocks lie.

    Args:
      book: "signed"; or "squares" for what is not negative, of which roots are stored, never 0 for what is not 0.
      block: entries of the last axis that share a scale, at most; about as many, where the axis is no multiple of it.
    """

    book: str = static(default="signed", one_of=("signed", "squares"))
    block: int = whole(default=128, within="[2, inf)")

    @property
    def form(self):
        return f"{type(self).__name__}_{self.book}_{self.block}"

    def stores(self, x):
        return super().stores(x) and blocks.shrink(x, self.block)

    def zeros(self, x):
        return jnp.zeros_like(x, self.code_dtype), blocks.scales(x, self.block)

    def encode(self, x, key):
        codes, scales = self.encode_blocks(blocks.divided(x, self.block))
        return blocks.joined(codes, x), scales

    def decode(self, parts):
        codes, scales = parts
        return blocks.joined(self.decode_blocks(blocks.divided(codes, self.block), scales), codes)

    def encode_blocks(self, x: Array) -> tuple[Array, Array]:
        """Codes and scales of blocks `[..., width]`."""
        codes, scales = self.to_codes(x if self.book == "signed" else length(jnp.maximum(x, 0)))
        return codes.astype(self.code_dtype), scales

    def decode_blocks(self, codes: Array, scales: Array) -> Array:
        """Blocks `[..., width]` in float32."""
        found = self.from_codes(codes.astype(jnp.float32)) * scales[..., None]
        return found if self.book == "signed" else jnp.square(found)

    @property
    def code_dtype(self):
        """Of a code: one byte."""
        raise NotImplementedError

    def to_codes(self, x: Array) -> tuple[Array, Array]:
        """Codes of blocks `[..., width]`, as float32, and the scales `[...]` that they are to be multiplied with."""
        raise NotImplementedError

    def from_codes(self, codes: Array) -> Array:
        """What codes, as float32, stand for, before it is multiplied with the scale."""
        raise NotImplementedError


def shares(x: Array, scales: Array) -> Array:
    """Blocks `[..., width]` divided by their scales `[...]`; where that is 0, as they are."""
    return x / jnp.where(scales == 0, 1, scales)[..., None]

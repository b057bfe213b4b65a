"""bfloat16 parameters that are float32 with the help of 16 bits in the state."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from gradtx import leafwise
from gradtx.combine.master_weights import copied, in_place
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.value import part, state

HALF = 0x8000  # of the last bit of a bfloat16, in those of a float32


@state
class SplitWeightsState(NamedTuple):
    """State of `split_weights`."""

    low: Params  # of each bfloat16 parameter the last 16 bits of its float32, uint16; None for the others
    inner_state: State


@transformation
class split_weights(GradientTransformation):
    """As `master_weights`, in 4 bytes per bfloat16 parameter instead of 6: its float32 copy is split in two.

        tx = split_weights(adamw(1e-4))

        w = 65536 (p - carry) + low              as the bits of float32; carry = low >= 32768
        w <- w + inner's update at w
        u = p(w) - p                             p(w): w rounded to bfloat16, halves away from 0

    So the parameter is the copy, rounded, and what was rounded off is in the state: together they are the copy to the
    bit. Where a program sets the parameter, the copy is within a step of bfloat16 of it.

    Args:
      inner: a transformation that ends in a descent step, or a foreign `(init, update)` pair; it sees the copies.

    State: 2 bytes per bfloat16 parameter, and the inner one's. Reads: params; what the inner one reads.
    Raises:
      ValueError: no params.
    Source: FlashOptim, 2026 (arXiv:2602.23349), which splits weights in bfloat16 and 8 bits of what that leaves; here
      16, so that nothing is lost.
    """

    inner: GradientTransformation = part(convert=as_transformation)

    def init(self, params):
        whole = in_place(copied(params, lambda p: p.dtype == jnp.bfloat16), params)
        low = lambda p: jnp.zeros_like(p, jnp.uint16) if p.dtype == jnp.bfloat16 else None
        return SplitWeightsState(leafwise.choose(low, params), self.inner.bare_init(whole))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        whole = in_place(leafwise.map(_whole, state.low, params), params)
        outgoing, inner = self.inner.bare_update(updates, state.inner_state, whole, **extra)
        outgoing, low = leafwise.unzip_map(_moved, outgoing, state.low, params, outputs=2)
        return outgoing, SplitWeightsState(low, inner)

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)


def _whole(low: Array, p: Array) -> Array:
    """The float32 of a bfloat16, which is given as float32, and of its last 16 bits."""
    bits, low = lax.bitcast_convert_type(p, jnp.uint32), low.astype(jnp.uint32)
    bits = bits - jnp.where(low >= HALF, jnp.uint32(2 * HALF), jnp.uint32(0))
    return lax.bitcast_convert_type(bits | low, jnp.float32)


def _moved(u: Array, low: Any, p: Array) -> tuple[Array, Any]:
    if low is None:
        return u, None
    w = _whole(low, p) + u
    bits = lax.bitcast_convert_type(w, jnp.uint32)
    rounded = lax.bitcast_convert_type((bits + HALF) & jnp.uint32(0xFFFF0000), jnp.float32)
    finite = jnp.isfinite(w)
    low = jnp.where(finite, bits & 0xFFFF, 0).astype(jnp.uint16)
    return jnp.where(finite, rounded, w) - p, low

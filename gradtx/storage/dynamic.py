"""Eight bits an entry and a scale for each block: codes that are finer the smaller the entry."""

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx.storage.blockwise import Blockwise, shares
from gradtx.value import value

DECADES = 7  # powers of 10 that codes reach down from a block's largest magnitude


def book(each: int) -> np.ndarray:
    """The magnitudes of codes 0, 1, 2, ...: 0; then, in decade i of seven, each 2^i even steps; then 1.

    Steps of decade i divide (0.1, 1) 10^(i - 6); a code stands for the middle of its step.
    """
    found = [0.0]
    for i in range(DECADES):
        steps = each * 2**i
        found += [10.0 ** (i - DECADES + 1) * (0.1 + 0.9 * (j + 0.5) / steps) for j in range(steps)]
    return np.array([*found, 1.0])


@value
class int8(Blockwise):
    """1 byte an entry and 4 a block: a code for its share of the largest magnitude in the block.

        signed:    x = s book(c)             s: the entry of largest magnitude, with its sign, turned
        squares:   x = (s book(c))^2         s: the root of the largest entry; for what is not negative

    `book` has seven decades, with twice as many codes in each as in the one below; so shares down to 1e-6 are told
    apart, and an entry has an error of at most 0.7 % of the largest. A square that is not 0 is never stored as 0: a
    step that is divided by its root would have no bound. The entry of largest magnitude is exact, and so is what was
    stored and read before.

    Args:
      book: "signed", or "squares" for averages of squares and other numbers that are not negative.
      block: entries of the last axis that share a scale, at most; about as many, where the axis is no multiple of it.

    Error of Gaussian entries: 1.1 % (root of the mean squares' ratio).
    Source: Dettmers et al., 8-bit optimizers via block-wise quantization, 2022 (arXiv:2110.02861), dynamic tree
      quantization; roots of squares, and no code 0 for what is not 0: as Li et al., Memory efficient optimizers with
      4-bit states, 2023 (arXiv:2309.01507) found for 4 bits. Differs from bitsandbytes: blocks lie along the last axis,
      so that codes have the array's shape and its sharding; a scale has a sign, so that both signs have the same codes.
    """

    @property
    def code_dtype(self):
        return jnp.int8 if self.book == "signed" else jnp.uint8

    def to_codes(self, x):
        top, bottom = jnp.max(x, -1), jnp.min(x, -1)
        if self.book == "squares":
            return jnp.maximum(_nearest(shares(x, top), 2), jnp.where(x > 0, 1.0, 0.0)), top
        scale = jnp.where(top >= -bottom, -top, -bottom)
        share = shares(x, scale)
        return jnp.sign(share) * jnp.minimum(_nearest(jnp.abs(share), 1), jnp.where(share < 0, 128.0, 127.0)), scale

    def from_codes(self, codes):
        return _magnitude(codes, 2) if self.book == "squares" else jnp.sign(codes) * _magnitude(jnp.abs(codes), 1)


def _magnitude(code: Array, each: int) -> Array:
    """`book(each)` of codes, whole float32 numbers, without looking it up: vector units have no tables."""
    found = jnp.zeros_like(code)
    for i in range(DECADES):
        first = each * 2**i - (each - 1)  # code of the decade's first step: 1, 2, 4, ... or 1, 3, 7, ...
        low, step = _decade(i, each)
        found = jnp.where(code >= first, low + step * (code - first + 0.5), found)
    return jnp.where(code >= _last(each), 1.0, found)


def _nearest(share: Array, each: int) -> Array:
    """The code, a whole float32 number, whose magnitude is nearest to a share in [0, 1]."""
    magnitudes = book(each)
    found = jnp.zeros_like(share)
    for i in range(DECADES):
        first, steps = each * 2**i - (each - 1), each * 2**i
        low, step = _decade(i, each)
        begin = (magnitudes[first - 1] + magnitudes[first]) / 2  # from here on the decade's first code is nearest
        inside = first + jnp.clip(jnp.floor((share - low) / step), 0, steps - 1)
        found = jnp.where(share >= begin, inside, found)
    last = _last(each)
    return jnp.where(share >= (magnitudes[last - 1] + magnitudes[last]) / 2, last, found)


def _decade(i: int, each: int) -> tuple[float, float]:
    """Where a decade begins, and how long its steps are."""
    power = 10.0 ** (i - DECADES + 1)
    return 0.1 * power, 0.9 * power / (each * 2**i)


def _last(each: int) -> int:
    """The code of 1."""
    return each * (2**DECADES - 1) + 1

"""Intervals: which numbers an argument may be, and the nearest one inside for numbers that only the program knows."""

import math
import re
from typing import Any

import jax.numpy as jnp
import numpy as np


class Interval:
    """An interval written as in a paper: "[0, 1)" holds 0 and does not hold 1."""

    def __init__(self, text: str) -> None:
        match = re.fullmatch(r"([\[(])(\S+), (\S+)([\])])", text)
        assert match, f"not an interval: {text}"
        self.text, self.low, self.high = text, float(match[2]), float(match[3])
        self.holds_low, self.holds_high = match[1] == "[", match[4] == "]"

    def __contains__(self, x: float) -> bool:
        above = x >= self.low if self.holds_low else x > self.low
        return above and (x <= self.high if self.holds_high else x < self.high)

    def nearest(self, x: Any) -> Any:
        """The number, or each entry, or the number inside that is nearest to it among those of its dtype. NaN stays.

        An end at infinity bounds nothing; the smallest positive number is the smallest normal one. The slope at an end
        that the interval holds is the slope inside.
        """
        low, high = self._ends(jnp.result_type(x))
        if isinstance(x, (int, float)):
            x = x if low is None else max(x, low)
            return x if high is None else min(x, high)
        x = x if low is None else jnp.where(x < low, low, x)
        return x if high is None else jnp.where(x > high, high, x)

    def _ends(self, dtype: Any) -> tuple[float | None, float | None]:
        """The least and the largest number of a dtype inside; None where there is no bound."""
        if jnp.issubdtype(dtype, jnp.integer):
            limits = jnp.iinfo(dtype)
            low = int(self.low) if self.low > limits.min else None
            return low, int(self.high) if self.high < limits.max else None
        number = np.dtype(dtype).type
        after = lambda end, toward: float(np.nextafter(number(end), number(toward)))
        least = self.low if self.holds_low else after(self.low, math.inf) if self.low else float(jnp.finfo(dtype).tiny)
        largest = self.high if self.holds_high else after(self.high, -math.inf)
        return least if math.isfinite(self.low) else None, largest if math.isfinite(self.high) else None

    def rule(self, x: float) -> str:
        """In words, what `x`, which is not inside, should do."""
        if x == math.inf == self.high:
            return "be finite"
        words = {"(0, inf)": "be positive", "(-inf, inf)": "be finite"}
        if self.text in ("[0, inf)", "[0, inf]"):
            return "not be negative" if x < 0 else "be a number"
        return words.get(self.text, f"lie in {self.text}")

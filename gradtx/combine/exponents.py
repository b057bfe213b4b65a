"""To which power each side of a tensor is taken, by the number of its sides."""

from collections.abc import Mapping
from typing import Any


def as_exponents(owner: str, name: str, x: Any) -> Any:
    """Exponents in their stored, hashable form. What users give: None; a number; or a mapping (or pairs) from a
    tensor's order to a number, or to a mapping (or pairs) from a side to a number.
    """

    def stored(x: Any, depth: int) -> Any:
        if isinstance(x, (int, float)) and not isinstance(x, bool):
            if not 0 <= x < float("inf"):
                raise ValueError(f"`{owner}`: {name} must not be negative, got {x!r}.")
            return float(x)
        pairs = list(x.items()) if isinstance(x, Mapping) else x
        if depth > 1 or not isinstance(pairs, (list, tuple)) or not all(isinstance(pair, tuple) for pair in pairs):
            raise TypeError(f"`{owner}`: {name} must be a number, or a mapping from orders to such, got {x!r}.")
        return tuple((int(key), stored(value, depth + 1)) for key, value in pairs)

    return None if x is None else stored(x, 0)


def exponents_of(given: Any, order: int, sides: str = "all") -> list[float]:
    """The exponent of each side of a tensor of some order; 0 for a side that is left alone.

    Args:
      given: from `as_exponents`. None, and what it does not name, is 1 / (2 k) for the k sides not left alone.
      sides: "all"; "outputs", the last one; "inputs", the others. Of a vector its one.
    """
    has = [sides == "all" or order < 2 or (k == order - 1) == (sides == "outputs") for k in range(order)]
    usual = 1 / (2 * max(sum(has), 1))
    mine = dict(given).get(order) if isinstance(given, tuple) else given
    of: dict[int, float] = dict(mine) if isinstance(mine, tuple) else {}
    usual = mine if isinstance(mine, float) else usual
    return [of.get(k, usual) if is_one else 0.0 for k, is_one in enumerate(has)]

"""What a parameter must be to belong to a group."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from gradtx.labels.naming import ROLES, Leaf
from gradtx.recipe import PrintsAsCode, Recipe


@dataclasses.dataclass(frozen=True, repr=False)
class Rule(PrintsAsCode):
    """A condition on a parameter: `path`, `role`, `rank`. `a & b`, `a | b` and `~a` are rules too.

    In the place of one, a string stands for `path(string)`, and a function is called with a parameter's path and shape.
    """

    kind: str
    args: tuple

    def __post_init__(self) -> None:
        if self.kind not in (kinds := ("path", "role", "rank", "function", "&", "|", "~")):
            raise ValueError(f"`Rule`: kind must be one of {kinds}, got {self.kind!r}.")
        if self.kind in ("&", "|", "~"):
            object.__setattr__(self, "args", tuple(as_rule("Rule", x) for x in self.args))

    def holds(self, leaf: Leaf) -> bool:
        """Whether a parameter fulfils it."""
        if self.kind == "path":
            return re.search(self.args[0], leaf.name) is not None
        if self.kind == "role":
            return leaf.role in self.args or ("stacked" in self.args and leaf.layers > 0)
        if self.kind == "rank":
            return len(leaf.shape) in self.args
        if self.kind == "function":
            return bool(self.args[0](leaf.name, leaf.shape))
        inner = [rule.holds(leaf) for rule in self.args]
        return {"&": all, "|": any, "~": lambda xs: not xs[0]}[self.kind](inner)

    def __and__(self, other: Any) -> "Rule":
        return Rule("&", (self, as_rule("&", other)))

    def __rand__(self, other: Any) -> "Rule":
        return Rule("&", (as_rule("&", other), self))

    def __or__(self, other: Any) -> "Rule":
        return Rule("|", (self, as_rule("|", other)))

    def __ror__(self, other: Any) -> "Rule":
        return Rule("|", (as_rule("|", other), self))

    def __invert__(self) -> "Rule":
        return Rule("~", (self,))

    def recipe(self) -> Any:
        if self.kind == "function":
            return self.args[0]
        if self.kind in ("path", "role", "rank"):
            return Recipe(f"labels.{self.kind}", self.args)
        return Recipe("labels.Rule", (), {"kind": self.kind, "args": self.args})

    def __repr__(self) -> str:
        if self.kind in ("&", "|"):
            return f"({self.args[0]!r} {self.kind} {self.args[1]!r})"
        return f"~{self.args[0]!r}" if self.kind == "~" else super().__repr__()


def path(pattern: str) -> Rule:
    """The parameters in whose path a regular expression is found: `path("^encoder/.*/kernel$")`."""
    try:
        re.compile(pattern)
    except (re.error, TypeError) as error:
        raise ValueError(f"`path`: pattern must be a regular expression, got {pattern!r}: {error}.") from None
    return Rule("path", (pattern,))


def role(*names: str) -> Rule:
    """The parameters that have one of these roles: "embedding", "head", "norm", "bias", "conv", "matrix", "other" (see
    `roles`), or "stacked": one leaf for a stack of layers, whatever else it is.
    """
    if not names or not set(names) <= {*ROLES, "stacked"}:
        raise ValueError(f"`role`: names must be some of {(*ROLES, 'stacked')}, got {names!r}.")
    return Rule("role", names)


def rank(*numbers: int) -> Rule:
    """The parameters that have one of these numbers of axes."""
    if not numbers or not all(isinstance(n, int) for n in numbers):
        raise ValueError(f"`rank`: numbers must be numbers of axes, got {numbers!r}.")
    return Rule("rank", numbers)


def as_rule(owner: str, x: Any) -> Rule:
    """A rule in any of its forms."""
    if isinstance(x, Rule):
        return x
    if isinstance(x, str):
        return path(x)
    if isinstance(x, Callable):
        return Rule("function", (x,))
    raise TypeError(f"`{owner}`: a rule must be a pattern, a function, `path`, `role` or `rank`, got {x!r}.")

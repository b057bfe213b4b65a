"""How a value is built, as a call of a public name: what it prints, and what its config holds."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, repr=False)
class Recipe:
    """A call that builds a value; it prints as code."""

    name: str
    args: tuple = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={x!r}" for name, x in self.kwargs.items())]
        return f"{self.name}({', '.join(shown)})"


class PrintsAsCode:
    """Base of what prints as the code that builds it."""

    def recipe(self) -> Any:
        """The call that builds it, a `Recipe`, or what else a user would write in its place."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return repr(self.recipe())

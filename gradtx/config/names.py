"""What a config may name: public names of gradtx, and what the caller adds to them."""

import dataclasses
import difflib
import importlib
import inspect
from collections.abc import Iterable, Mapping
from typing import Any

from gradtx.keys import Key
from gradtx.recipe import PrintsAsCode

SPACES = (
    "",
    "labels",
    "storage",
    "tuning",
    "contrib",
    "experimental.aggregating",
)  # of names: "labels.role"
WORDS = {"function": str, "dict": (list, tuple), "array": Mapping}  # what stands for what has no name, and its form


class Names:
    """Names and what they stand for: those of `SPACES`, and those given."""

    def __init__(self, owner: str, given: Mapping[str, Any] | None) -> None:
        self.owner = owner
        self.given = {"keys.Key": Key, **(given or {})}
        if taken := [name for name in given or {} if name in WORDS or _public(name) is not None]:
            raise ValueError(f"`{owner}`: names has {taken}, which mean something else already.")

    def find(self, name: str) -> Any:
        """What a name stands for; None, if nothing."""
        return self.given.get(name, _public(name))

    def builds(self, name: Any) -> bool:
        """Whether a name stands for what can be called in a config."""
        if not isinstance(name, str) or (found := self.find(name)) is None:
            return False
        return callable(found) if name in self.given else _builds(found)

    def of(self, x: Any) -> str | None:
        """The name of a class or a function; None, if it has none."""
        if name := next((name for name, found in self.given.items() if found is x), None):
            return name
        own = getattr(x, "__name__", "")
        return next((name for name in (_join(space, own) for space in SPACES) if _public(name) is x), None)

    def is_form(self, x: Mapping) -> bool:
        """Whether a mapping reads as a call, or as one of the words."""
        if len(x) != 1:
            return False
        ((name, inside),) = x.items()
        form = WORDS.get(name) if isinstance(name, str) else None
        return isinstance(inside, form) if form else isinstance(inside, (Mapping, list, tuple)) and self.builds(name)

    def nearest(self, name: Any, *, to_call: bool) -> str:
        """In words, the name that was meant, if there is one like it: of what can be called, or of any function."""
        found = [*self.given, *(_join(space, other) for space in SPACES for other in dir(_module(space)))]
        return nearest(name, [x for x in found if (self.builds(x) if to_call else callable(self.find(x)))])


def nearest(name: Any, names: Iterable[str]) -> str:
    """In words, the name that was meant, if there is one like it."""
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    return f" Did you mean {close[0]!r}?" if close else ""


def _join(space: str, name: str) -> str:
    return f"{space}.{name}" if space else name


def _module(space: str) -> Any:
    return importlib.import_module(f"gradtx.{space}" if space else "gradtx")


def _public(name: str) -> Any:
    space, _, last = name.rpartition(".")
    if space not in SPACES or last not in dir(_module(space)):
        return None
    found = getattr(_module(space), last)
    return None if inspect.ismodule(found) else found


def _builds(x: Any) -> bool:
    """Whether calling it makes a value: a class of them, a named tuple, or a function that says it returns one."""
    if inspect.isfunction(x):
        returned = inspect.signature(x).return_annotation
        x = x.__globals__.get(returned) if isinstance(returned, str) else returned
        return inspect.isclass(x) and (issubclass(x, PrintsAsCode) or dataclasses.is_dataclass(x))
    return inspect.isclass(x) and (issubclass(x, PrintsAsCode) or dataclasses.is_dataclass(x) or hasattr(x, "_fields"))

"""What may stand in a place of a config, by the annotation of the argument: its kind."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias, Union, get_args, get_origin

Kind: TypeAlias = Any
NUMBER = float | Callable  # or a schedule


def of_arguments(made: Callable) -> tuple[inspect.Signature, dict[str, Kind]]:
    """The signature of what is called, and the kind of each argument."""
    signature = inspect.signature(made)
    kinds = {name: p.annotation for name, p in signature.parameters.items()}
    if dataclasses.is_dataclass(made):
        numbers = [field.name for field in dataclasses.fields(made) if "interval" in field.metadata]
        kinds |= {name: NUMBER for name in numbers if name in kinds and is_anything(kinds[name])}
    return signature, kinds


def of_places(signature: inspect.Signature, kinds: dict[str, Kind]) -> Iterator[Kind]:
    """The kinds of arguments given by place, as many as one likes: that there are too many, calling says."""
    for name, p in signature.parameters.items():
        yield kinds[name]
        while p.kind is p.VAR_POSITIONAL:
            yield kinds[name]
    while True:
        yield Any


def of_elements(kind: Kind) -> Iterator[Kind]:
    """The kinds of a list's elements, as many as one likes."""
    origins = [(get_origin(x), get_args(x)) for x in members(kind) if isinstance(get_origin(x), type)]
    origin, inside = next((x for x in origins if issubclass(x[0], Iterable)), (list, (Any,)))
    each = inside if origin is tuple and inside[-1] is not ... else inside[:1]
    while True:
        yield from each


def of_entries(kind: Kind) -> tuple[Kind, Kind]:
    """The kinds of a mapping's keys and values."""
    return next((get_args(x) for x in members(kind) if is_mapping(x) and len(get_args(x)) == 2), (Any, Any))


def members(kind: Kind) -> tuple[Kind, ...]:
    """The alternatives of a union."""
    if get_origin(kind) in (Union, types.UnionType):
        return tuple(x for member in get_args(kind) for x in members(member))
    return (kind,)


def is_mapping(kind: Kind) -> bool:
    """Whether a mapping of data may stand there, which is no call."""
    return any(isinstance(x, type) and issubclass(x, Mapping) for x in (get_origin(y) or y for y in members(kind)))


def is_anything(kind: Kind) -> bool:
    """Whether nothing is said of what may stand there."""
    return any(x in (Any, inspect.Parameter.empty) or isinstance(x, str) for x in members(kind))


def read(text: str, kind: Kind) -> Any:
    """Text as a number or a flag, where one of them may stand and text may not."""
    alternatives = members(kind)
    if text == "...":
        return ...
    if str in alternatives or is_anything(kind):
        return text
    if float in alternatives or int in alternatives:
        for number in (int, float):
            try:
                return number(text)
            except ValueError:
                continue
    elif bool in alternatives and text.lower() in ("true", "false"):
        return text.lower() == "true"
    return text

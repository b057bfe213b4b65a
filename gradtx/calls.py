"""How formulas are called: with the arguments that they name, and by the classes that extend them."""

import functools
import inspect
from collections.abc import Callable
from typing import Any


def given_what_it_names(function: Callable) -> Callable:
    """`function` as one to be called with any arguments: it is given those by place that it has a place for, and of
    those by keyword the ones that it names. A `params` without a place is given by keyword.

    Optax's plain signature `update(updates, state, params=None)` and one with `*, value` are both good.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # it does not say: a function written in C
        return function
    takes_all = {p.kind for p in parameters} & {inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD}
    placed = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    named = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}

    @functools.wraps(function)
    def call(*args: Any, **extra: Any) -> Any:
        if inspect.Parameter.VAR_POSITIONAL not in takes_all and len(args) > len(placed):
            if "params" in named - set(placed):
                extra["params"] = args[-1]
            args = args[: len(placed)]
        if inspect.Parameter.VAR_KEYWORD not in takes_all:
            extra = {name: x for name, x in extra.items() if name in named.difference(placed[: len(args)])}
        return function(*args, **extra)

    return call


def public(name: str, rule: Callable, formula: Callable) -> Callable:
    """The method `name` of a class: `rule`, which goes around the object's formula; but where a subclass calls the
    method of a class that it extends, as in `super().update(...)`, it is that class's formula alone.
    """

    @functools.wraps(rule)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        is_its_own = getattr(type(self), name) is method
        return rule(self, *args, **kwargs) if is_its_own else formula(self, *args, **kwargs)

    method.goes_around = formula  # pyright: ignore[reportAttributeAccessIssue]
    return method

"""Functions of the parameters, as functions of the part of them that a link sees."""

import functools
from typing import Any

from gradtx import leafwise
from gradtx.types import Params

FUNCTIONS = ("value_fn", "obj_fn", "grad_fn")  # the extra arguments that are functions of the parameters


def on_part(extra: dict[str, Any], params: Params | None) -> dict[str, Any]:
    """`extra` with `value_fn`, `obj_fn` and `grad_fn` as functions of the part of `params` that a link sees.

    Where the part holds None they take the leaf of `params`. What `grad_fn` returns has the part's leaves, widened.
    """
    complete = lambda part: leafwise.choose(lambda p, x: p if x is None else x, params, part)

    def on_this_part(name, function):
        if params is None or function is None or name not in FUNCTIONS:
            return function

        @functools.wraps(function)
        def wrapped(part, *args, **kwargs):
            result = function(complete(part), *args, **kwargs)
            return result if name != "grad_fn" else leafwise.widen(leafwise.choose(lambda _, g: g, part, result))

        return wrapped

    return {name: on_this_part(name, x) for name, x in extra.items()}

"""The methods that are measured, from either library, and the training step around them."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import optax

import gradtx
from benchmarks.catalogue import CATALOGUE

LIBRARIES: tuple[ModuleType, ModuleType] = (gradtx, optax)

MEASURED = {name: entry for name, entry in CATALOGUE.items() if entry.moves}


def build(recipe: str, library: ModuleType) -> Any:
    """The recipe's method, from one of the libraries."""
    entry = MEASURED[recipe]
    return entry.theirs(library) if library is optax and entry.theirs else entry.build(library)


def _is_in_optax(recipe: str) -> bool:
    try:
        return build(recipe, optax) is not None
    except (AttributeError, TypeError):  # no such name, or no such argument
        return False


RECIPES = {name: entry for name, entry in MEASURED.items() if _is_in_optax(name)}  # of both libraries


def step_of(library: ModuleType, tx: Any) -> Callable:
    """The part of a training step that comes after the gradients, to be compiled with the first two arguments donated.

    Donated buffers are handed to the results in order, so params and state come back in the order in which they go
    in; in another order the compiled step copies them (adamw: 72 bytes per parameter instead of 40). The loss, which
    some methods read, is 1.
    """

    tx = library.with_extra_args_support(tx)

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, value=1.0)
        return library.apply_updates(params, updates), state

    return step

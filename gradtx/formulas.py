"""A formula for one array, carried out for many: one trace for those that look alike, their sums in one collective."""

import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import jax
import numpy as np
from jax.interpreters.partial_eval import DynamicJaxprTracer

from gradtx.reductions import together


def alike(fn: Callable, rows: list[tuple]) -> list:
    """`fn` of each row of arguments. While a program is traced, rows of the same types and shapes share one trace.

    So a thousand equal leaves are traced and lowered in the time of one: each becomes a call of one function, which XLA
    inlines. In eager code, where each call would be compiled anew, `fn` is called as it is.

    A formula that asks for sums (`reductions.summed`) runs as far as it can on every row; then what all rows ask for is
    summed together, and it starts anew, with the sums. What it computed for them it computes again, as by
    `moments.again`: XLA joins both where that saves memory.
    """
    if not inspect.isgeneratorfunction(fn):
        return _each(fn, rows)
    sums: list[tuple] = [()] * len(rows)
    results: dict[int, Any] = {}
    while waiting := [i for i in range(len(rows)) if i not in results]:
        found = _each(wraps(fn)(partial(_resumed, fn)), [(rows[i], sums[i]) for i in waiting])
        found = dict(zip(waiting, found, strict=True))
        results |= {i: x for i, x in found.items() if not isinstance(x, _Asked)}
        asked = {i: x for i, x in found.items() if isinstance(x, _Asked)}
        answers = iter(together([part for x in asked.values() for part in zip(x.arrays, x.axes, strict=True)]))
        for i, x in asked.items():
            sums[i] += (tuple(next(answers) for _ in x.arrays),)
    return [results[i] for i in range(len(rows))]


def in_tuple(fn: Callable) -> Callable:
    """The formula with its result in a tuple."""

    @wraps(fn)
    def asking(*row):
        return ((yield from fn(*row)),)

    return asking if inspect.isgeneratorfunction(fn) else wraps(fn)(lambda *row: (fn(*row),))


@partial(jax.tree_util.register_dataclass, data_fields=["arrays"], meta_fields=["axes"])
@dataclass
class _Asked:
    """What a formula asks the sums of."""

    arrays: list
    axes: tuple


def _resumed(fn: Callable, row: tuple, sums: tuple) -> Any:
    """The formula from its start, given the sums that it asks for: its result, or what it asks for next."""
    formula, answers = fn(*row), iter(sums)
    try:
        parts = next(formula)
        while True:
            answer = next(answers, None)
            if answer is None:
                return _Asked([x for x, _ in parts], tuple(axes for _, axes in parts))
            parts = formula.send(answer)
    except StopIteration as end:
        return end.value


def _each(fn: Callable, rows: list[tuple]) -> list:
    kinds = [_kind(row) for row in rows]
    shared = {kind: _shared(fn, kind) for kind, n in Counter(kinds).items() if kind and n > 1}
    return [shared[kind](row) if kind in shared else fn(*row) for kind, row in zip(kinds, rows, strict=True)]


def _kind(row: tuple) -> tuple | None:
    """What two rows must agree in to be computed by one trace; None in eager code."""
    leaves, structure = jax.tree.flatten(row)
    if not any(isinstance(x, DynamicJaxprTracer) for x in leaves):
        return None
    return structure, tuple(jax.typeof(x) if _is_array(x) else (type(x), x) for x in leaves)


def _shared(fn: Callable, kind: tuple) -> Callable:
    structure, types = kind

    def formula(*arrays):
        remaining = iter(arrays)
        return fn(*structure.unflatten(x[1] if isinstance(x, tuple) else next(remaining) for x in types))

    formula.__name__ = fn.__qualname__.replace(".<locals>", "")  # what a profile shows: scale_by_adam.update.leaf
    compiled = jax.jit(formula)
    return lambda row: compiled(*filter(_is_array, jax.tree.leaves(row)))


def _is_array(x: Any) -> bool:
    return isinstance(x, (jax.Array, np.ndarray, np.generic))

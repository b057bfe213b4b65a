"""Traced programs taken apart: which results are computed entry by entry, and these for a tile of the arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal

# What reads, of every operand that is no scalar, the entry at the result's place.
ENTRYWISE = frozenset(
    "abs add add_any and atan2 cbrt ceil clamp convert_element_type copy copy_p cos div eq erf exp exp2 expm1 "
    "floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne neg nextafter not or pow "
    "reduce_precision rem round rsqrt select_n sign sin sqrt square stop_gradient sub tanh xor".split()
)
CALLS = {"jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "custom_jvp_call": "call_jaxpr"}


class Operation:
    """An operation of a program, on values and constants."""

    __slots__ = ("name", "operands", "parameters", "primitive")

    def __init__(self, primitive: Any, parameters: Mapping[str, Any], operands: Sequence[Any]):
        self.name, self.primitive, self.parameters, self.operands = primitive.name, primitive, parameters, operands

    def carried_out(self, operands: Sequence[Any]) -> list[Any]:
        """Its results."""
        found = self.primitive.bind(*operands, **self.parameters)
        return list(found) if self.primitive.multiple_results else [found]


class Value:
    """A value of a program: an argument, which has no operation, or one of an operation's results."""

    __slots__ = ("aval", "operation", "place")

    def __init__(self, aval: Any, operation: Operation | None = None, place: int = 0):
        self.aval, self.operation, self.place = aval, operation, place

    @property
    def shape(self) -> tuple[int, ...]:
        return self.aval.shape

    @property
    def dtype(self) -> Any:
        return self.aval.dtype

    @property
    def operands(self) -> Sequence[Any]:
        """What its operation is of."""
        return self.operation.operands if self.operation else ()


def trace(fn: Callable, *args: Any) -> tuple[list[Value], list[Any], Any]:
    """The leaves of the arguments, and of the results, as values, and the results' structure.

    A result may be a constant. Calls within the program are resolved, and barriers are seen through.
    """
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    inputs = [Value(x.aval) for x in closed.jaxpr.invars]
    return inputs, _results(closed, inputs, None, lambda x: False), jax.tree.structure(shape)


def taken_apart(closed: ClosedJaxpr, platform: str, barred: Callable[[Any], bool]) -> tuple[list[Value], list[Any]]:
    """The constants and arguments of a program, and its results, as by `trace`.

    Args:
      platform: for which branches by platform are resolved.
      barred: around which values a barrier stays.
    """
    constants, inputs = ([Value(x.aval) for x in xs] for xs in (closed.jaxpr.constvars, closed.jaxpr.invars))
    return constants + inputs, _results(ClosedJaxpr(closed.jaxpr, constants), inputs, platform, barred)


def _results(
    closed: ClosedJaxpr, arguments: Sequence[Any], platform: str | None, barred: Callable[[Any], bool]
) -> list[Any]:
    known = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *arguments], strict=True))
    read = lambda x: _number(x) if isinstance(x, Literal) else known[x]
    for equation in closed.jaxpr.eqns:
        operands, name = [read(x) for x in equation.invars], equation.primitive.name
        branch = _branch(equation.params, platform)
        if name in CALLS:
            inner = equation.params[CALLS[name]]
            inner = inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ())
            results = _results(inner, operands, platform, barred)
        elif branch is not None:
            results = _results(branch, operands[1:], platform, barred)
        elif name == "optimization_barrier":
            barrier = lambda x, of=equation: Value(x.aval, Operation(of.primitive, of.params, [x]))
            results = [barrier(x) if isinstance(x, Value) and barred(x) else x for x in operands]
        else:
            operation = Operation(equation.primitive, equation.params, operands)
            results = [Value(x.aval, operation, i) for i, x in enumerate(equation.outvars)]
        known |= zip(equation.outvars, results, strict=True)
    return [read(x) for x in closed.jaxpr.outvars]


def _number(literal: Any) -> Any:
    return np.asarray(literal.val, literal.aval.dtype)[()]


def _branch(parameters: Mapping[str, Any], platform: str | None) -> ClosedJaxpr | None:
    """Of a branch by platform, the program for this one."""
    platforms = parameters.get("branches_platforms")
    if platform is None or platforms is None:
        return None
    branches = zip(parameters["branches"], platforms, strict=True)
    return next((branch for branch, names in branches if names is None or platform in names), None)


def is_entrywise(results: Iterable[Any], shape: Sequence[int]) -> bool:
    """Whether results, of this shape, are computed entry by entry, from arrays of this shape and from scalars.

    However those were found: a scalar may be a norm of arrays of any kind.
    """
    return all(_reads_its_place(x, tuple(shape)) for x in ordered(results, _is_scalar))


def _reads_its_place(x: Value, shape: tuple[int, ...]) -> bool:
    if x.shape == () or x.operation is None:
        return x.shape in ((), shape)
    shapes = {jnp.shape(y) if not isinstance(y, Value) else y.shape for y in x.operands}
    if x.operation.name == "broadcast_in_dim":
        return x.shape == shape and shapes == {()}
    return x.shape == shape and x.operation.name in ENTRYWISE and shapes <= {(), shape}


def arguments(results: Iterable[Any]) -> list[Value]:
    """The arguments of the program, and the scalars, from which results that are computed entry by entry are."""
    return [x for x in ordered(results, _is_scalar) if x.shape == () or x.operation is None]


def compute(results: Sequence[Any], given: Mapping[int, Any]) -> list[Any]:
    """Results, as the program does, from its arguments, which are given by their `id`."""
    known, done = dict(given), {}
    read = lambda x: known[id(x)] if isinstance(x, Value) else x
    for x in between(results, given)[1]:
        if id(x.operation) not in done:
            assert x.operation is not None, "an argument is not given"
            done[id(x.operation)] = x.operation.carried_out([read(y) for y in x.operands])
        known[id(x)] = done[id(x.operation)][x.place]
    return [read(x) for x in results]


def compute_tile(results: Sequence[Any], given: Mapping[int, Any], shape: Sequence[int]) -> list[Any]:
    """Results that are computed entry by entry, for a tile, from its part of their `arguments`, given by their `id`."""
    known = dict(given)
    read = lambda x: known[id(x)] if isinstance(x, Value) else x
    for x in between(results, given)[1]:
        assert x.operation is not None, "an argument is not given"
        operands = [read(y) for y in x.operands]
        is_spread = x.operation.name == "broadcast_in_dim"
        known[id(x)] = jnp.full(shape, operands[0]) if is_spread else x.operation.carried_out(operands)[0]
    return [read(x) for x in results]


def between(results: Iterable[Any], known: Mapping[int, Any]) -> tuple[list[Value], list[Value]]:
    """What results are computed from, of what is known by its `id`; and what is between, operands first."""
    parts = ordered(results, lambda x: id(x) in known)
    return [x for x in parts if id(x) in known], [x for x in parts if id(x) not in known]


def ordered(results: Iterable[Any], ends: Callable[[Value], bool]) -> list[Value]:
    """The values that results are made of, themselves too, operands first; beyond those that are ends, none."""
    found: dict[int, Value] = {}
    waiting = [(x, False) for x in results if isinstance(x, Value)]
    while waiting:
        x, is_ready = waiting.pop()
        if id(x) in found:
            continue
        if is_ready or ends(x):
            found[id(x)] = x
        else:
            waiting += [(x, True), *((y, False) for y in x.operands if isinstance(y, Value))]
    return list(found.values())


def _is_scalar(x: Value) -> bool:
    return x.shape == ()

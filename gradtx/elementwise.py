"""Traced programs taken apart: which results are computed entry by entry, and these for a tile of the arrays."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
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

    __slots__ = ("operation", "place", "shape")

    def __init__(self, shape: tuple[int, ...], operation: Operation | None = None, place: int = 0):
        self.shape, self.operation, self.place = shape, operation, place

    @property
    def operands(self) -> Sequence[Any]:
        """What its operation is of."""
        return self.operation.operands if self.operation else ()


def trace(fn: Callable, *args: Any) -> tuple[list[Value], list[Any], Any]:
    """The leaves of the arguments, and of the results, as values, and the results' structure.

    A result may be a constant. Calls within the program are resolved.
    """
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
    inputs = [Value(x.aval.shape) for x in closed.jaxpr.invars]
    return inputs, _results(closed, inputs), jax.tree.structure(shape)


def _results(closed: ClosedJaxpr, arguments: Sequence[Any]) -> list[Any]:
    known = dict(zip([*closed.jaxpr.constvars, *closed.jaxpr.invars], [*closed.consts, *arguments], strict=True))
    read = lambda x: x.val if isinstance(x, Literal) else known[x]
    for equation in closed.jaxpr.eqns:
        operands, name = [read(x) for x in equation.invars], equation.primitive.name
        if name in CALLS:
            inner = equation.params[CALLS[name]]
            results = _results(inner if isinstance(inner, ClosedJaxpr) else ClosedJaxpr(inner, ()), operands)
        elif name == "optimization_barrier":
            results = operands
        else:
            operation = Operation(equation.primitive, equation.params, operands)
            results = [Value(x.aval.shape, operation, i) for i, x in enumerate(equation.outvars)]
        known |= zip(equation.outvars, results, strict=True)
    return [read(x) for x in closed.jaxpr.outvars]


def is_entrywise(results: Iterable[Any], shape: Sequence[int]) -> bool:
    """Whether results, of this shape, are computed entry by entry, from arrays of this shape and from scalars.

    However those were found: a scalar may be a norm of arrays of any kind.
    """
    return all(_reads_its_place(x, tuple(shape)) for x in _ordered(results, beyond_scalars=False))


def _reads_its_place(x: Value, shape: tuple[int, ...]) -> bool:
    if x.shape == () or x.operation is None:
        return x.shape in ((), shape)
    shapes = {jnp.shape(y) if not isinstance(y, Value) else y.shape for y in x.operands}
    if x.operation.name == "broadcast_in_dim":
        return x.shape == shape and shapes == {()}
    return x.shape == shape and x.operation.name in ENTRYWISE and shapes <= {(), shape}


def arguments(results: Iterable[Any]) -> list[Value]:
    """The arguments of the program, and the scalars, from which results that are computed entry by entry are."""
    return [x for x in _ordered(results, beyond_scalars=False) if x.shape == () or x.operation is None]


def compute(results: Sequence[Any], given: Mapping[int, Any]) -> list[Any]:
    """Results, as the program does, from its arguments, which are given by their `id`."""
    known, done = dict(given), {}
    read = lambda x: known[id(x)] if isinstance(x, Value) else x
    for x in _ordered(results, known):
        if id(x.operation) not in done:
            assert x.operation is not None, "an argument is not given"
            done[id(x.operation)] = x.operation.carried_out([read(y) for y in x.operands])
        known[id(x)] = done[id(x.operation)][x.place]
    return [read(x) for x in results]


def compute_tile(results: Sequence[Any], given: Mapping[int, Any], shape: Sequence[int]) -> list[Any]:
    """Results that are computed entry by entry, for a tile, from its part of their `arguments`, given by their `id`."""
    known = dict(given)
    read = lambda x: known[id(x)] if isinstance(x, Value) else x
    for x in _ordered(results, known):
        assert x.operation is not None, "an argument is not given"
        operands = [read(y) for y in x.operands]
        is_spread = x.operation.name == "broadcast_in_dim"
        known[id(x)] = jnp.full(shape, operands[0]) if is_spread else x.operation.carried_out(operands)[0]
    return [read(x) for x in results]


def _ordered(results: Iterable[Any], known: Iterable[int] = (), *, beyond_scalars: bool = True) -> list[Value]:
    """The values that results are made of, themselves too, operands first; no known ones, nor theirs."""
    found: dict[int, Value] = {}
    known = set(known)
    waiting = [(x, False) for x in results if isinstance(x, Value)]
    while waiting:
        x, is_ready = waiting.pop()
        if id(x) in found or id(x) in known:
            continue
        if is_ready or (x.shape == () and not beyond_scalars):
            found[id(x)] = x
        else:
            waiting += [(x, True), *((y, False) for y in x.operands if isinstance(y, Value))]
    return list(found.values())

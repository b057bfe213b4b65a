"""Each result of a program computed by itself, so that XLA's CPU compiler, where it is asked to, makes one loop of them.

It joins loops that read the same arrays, and none of which one reads what another writes. So nothing that is computed
entry by entry may be computed for two uses: every result, and every sum over an array, has its own computation from
what is in memory. XLA would find what is equal in two of them, and compute it once; so their numbers pass a barrier.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gradtx.elementwise import ENTRYWISE, Operation, Value, compute, ordered, taken_apart

FEW = 6
OPERANDS = 17  # XLA joins no loop of 20
LEAST = 1024  # entries of an array that is worth it
FLOATS = frozenset(map(jnp.dtype, ("float32", "float64")))
SUMS = frozenset({"reduce", "reduce_sum", "reduce_max", "reduce_min"})


def separated(fn: Callable) -> Callable:
    """The function, of trees of arrays, each result of which is computed by itself on a CPU; elsewhere as it is."""

    def apart(*args: Any) -> Any:
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*args)
        if closed.effects:
            return fn(*args)
        n = len(closed.consts)
        as_it_is = lambda *xs: jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, xs[:n]))(*xs[n:])
        alone = lambda *xs: _each_alone(closed, xs)
        results = jax.custom_jvp(alone)
        results.defjvp(lambda primals, tangents: jax.jvp(as_it_is, primals, tangents))
        return jax.tree.unflatten(jax.tree.structure(shape), results(*closed.consts, *jax.tree.leaves(args)))

    return apart


def _each_alone(closed: ClosedJaxpr, args: Sequence[Array]) -> list[Any]:
    inputs, results = taken_apart(closed, platform="cpu", barred=lambda x: not _is_by_entries(x))
    program = _Program({id(value): x for value, x in zip(inputs, args, strict=True)})
    for x in ordered(results, lambda x: id(x) in program.known):
        if id(x) not in program.known and not _is_by_entries(x):
            program.carry_out(x)
    return [program.alone([x])[0] for x in results]


class _Program:
    """A program, as far as it was carried out.

    Attributes:
      known: by their `id`, values that are computed once for all their uses.
    """

    def __init__(self, known: dict[int, Any]):
        self.known, self.done, self.compiled = known, {}, {}
        self.uses, self.numbers, self.rows = Counter(), {}, itertools.count()

    def carry_out(self, x: Value) -> None:
        """Computes a value, once: of a sum, the arrays for this sum alone."""
        operation = x.operation
        assert operation is not None, "an argument is not given"
        if id(operation) not in self.done:
            is_sum = operation.name in SUMS
            operands = self.alone(operation.operands, summed=True) if is_sum else map(self._once, operation.operands)
            self.done[id(operation)] = operation.carried_out(list(operands))
        self.known[id(x)] = self.done[id(operation)][x.place]

    def _once(self, x: Any) -> Any:
        if not isinstance(x, Value):
            return x
        if id(x) not in self.known:
            ends, _ = self._between([x])
            (self.known[id(x)],) = compute([x], {id(y): self.known[id(y)] for y in ends})
        return self.known[id(x)]

    def alone(self, values: Sequence[Any], summed=False) -> list[Any]:
        """Values, computed together, for one use."""
        ends, inner = self._between(values)
        if not inner:
            return [self._once(x) for x in values]
        arrays = [id(x) for x in ends if _is_large(x)]
        use = max((self.uses[key] for key in arrays), default=0)
        self.uses |= dict.fromkeys(arrays, use + 1)
        cone = _Cone(ends, inner, values)
        found = [self.known[id(x)] for x in ends]
        if not use and (cone.reads <= OPERANDS or summed):
            return self._compiled(cone, cone.plain)(found)
        if summed or cone.reads > FEW:
            return self._compiled(cone, cone.packed)(found, next(self.rows))
        ones = [self._one(dtype, use) for dtype in cone.dtypes(found)]
        numbers = [self._number(cone.constants[key], use) for key in cone.first_numbers]
        return self._compiled(cone, cone.marked)(found, numbers, ones)

    def _compiled(self, cone: "_Cone", function: Callable) -> Callable:
        return self.compiled.setdefault((cone.form, function.__name__), jax.jit(function))

    def _number(self, x: Array, use: int) -> Array:
        key = float(x), x.dtype, use
        if key not in self.numbers:
            self.numbers[key] = x * self._one(x.dtype, use)
        return self.numbers[key]

    def _one(self, dtype: Any, use: int) -> Array:
        """1, of which XLA does not know that it is, nor that it is that of another use."""
        key = dtype, use
        if key not in self.numbers:
            power = 2.0 ** use
            self.numbers[key] = jax.lax.optimization_barrier(jnp.array(power, dtype)) * jnp.array(1 / power, dtype)
        return self.numbers[key]

    def _between(self, values: Sequence[Any]) -> tuple[list[Value], list[Value]]:
        """What values are computed from, of what is known; and what is between, operands first."""
        parts = ordered(values, lambda x: id(x) in self.known)
        return [x for x in parts if id(x) in self.known], [x for x in parts if id(x) not in self.known]


class _Cone:
    """How values are computed from what is at the ends.

    Attributes:
      form: what cones agree in that compute the same.
      reads: how many arrays and numbers they are computed from.
    """

    def __init__(self, ends: list[Value], inner: list[Value], values: Sequence[Any]):
        self.places = {id(x): i for i, x in enumerate([*ends, *inner])}
        self.constants: dict[Any, Any] = {}
        self.operations = [x.operation for x in inner if x.operation]
        self.steps = [tuple(map(self._reference, operation.operands)) for operation in self.operations]
        self.values = tuple(map(self._reference, values))
        self.reads = len(ends) + len(self.constants)
        first = {x for step in self.steps if not any(isinstance(x, int) and x >= len(ends) for x in step) for x in step}
        self.first_numbers = [key for key in self.constants if key in first and key in self._numbers()]
        shapes = tuple(x.shape for x in ends)
        self.form = shapes, tuple(map(_form, self.operations)), tuple(self.steps), self.values

    def _reference(self, x: Any) -> Any:
        if isinstance(x, Value):
            return self.places[id(x)]
        key = (x.dtype.name, str(x)) if isinstance(x, np.generic) else str(id(x))
        self.constants[key] = x
        return key

    def dtypes(self, found: Sequence[Array]) -> list[Any]:
        """Of what can be multiplied by 1."""
        return sorted({x.dtype for x in (*found, *self.constants.values())} & FLOATS, key=str)

    def _numbers(self, dtypes: Any = FLOATS) -> list[Any]:
        return [key for key, x in self.constants.items() if isinstance(x, np.generic) and x.dtype in dtypes]

    def plain(self, found: list[Array]) -> list[Array]:
        """The values, as they would be."""
        return self._computed(found, {}, {})

    def marked(self, found: list[Array], numbers: list[Array], ones: list[Array]) -> list[Array]:
        """The values, computed with numbers."""
        numbers_of = dict(zip(self.first_numbers, numbers, strict=True))
        return self._computed(found, numbers_of, dict(zip(self.dtypes(found), ones, strict=True)))

    def packed(self, found: list[Array], row: Array) -> list[Array]:
        """The values, computed from numbers that lie in one array, together with that of a row like no other."""
        numbers, ones = {}, {}
        for dtype in self.dtypes(found):
            keys = self._numbers([dtype])
            packed = jnp.append(np.array([*(self.constants[key] for key in keys), 1], dtype), jnp.asarray(row, dtype))
            *mine, ones[dtype], _ = jax.lax.optimization_barrier(packed)
            numbers |= zip(keys, mine, strict=True)
        return self._computed(found, numbers, ones)

    def _computed(self, found: list[Array], numbers: dict[Any, Array], ones: dict[Any, Array]) -> list[Array]:
        known = dict(enumerate(found)) | self.constants | numbers
        for i, (operation, step) in enumerate(zip(self.operations, self.steps, strict=True), len(found)):
            operands = [known[x] for x in step]
            if ones and not any(x in numbers or (isinstance(x, int) and x >= len(found)) for x in step):
                first = next((j for j, x in enumerate(operands) if x.dtype in ones), None)
                if first is not None:
                    operands[first] *= ones[operands[first].dtype]
            (known[i],) = operation.carried_out(operands)
        return [known[x] for x in self.values]


def _form(operation: Operation) -> Any:
    """What operations that do the same agree in, as far as that can be known."""
    parameters = tuple(sorted(operation.parameters.items()))
    try:
        hash(parameters)
    except TypeError:
        return id(operation)
    return operation.name, parameters


def _is_by_entries(x: Value) -> bool:
    """Whether a value is a large array that is computed entry by entry."""
    return _is_large(x) and x.operation is not None and x.operation.name in ENTRYWISE | {"broadcast_in_dim"}


def _is_large(x: Value) -> bool:
    return math.prod(x.shape) >= LEAST

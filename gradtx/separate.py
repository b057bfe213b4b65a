"""Each result of a program computed by itself: of those, XLA's CPU compiler, where it is asked to, makes one loop.

It joins loops that read the same arrays, and none of which one reads what another writes; and then it also keeps in
memory what is computed for two of them. So nothing that is computed entry by entry may be computed for two uses: every
result, and every sum over an array, gets its own computation from what is in memory. XLA would find what is equal in
two of them, and compute it once; so every use but the first has its own numbers, equal to the others', behind barriers.
"""

import itertools
import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from gradtx.elementwise import ENTRYWISE, Operation, Value, between, compute, taken_apart
from gradtx.placement import joins_loops

LEAST = 1024  # entries of an array that is worth it
BY_ENTRIES = ENTRYWISE | {"broadcast_in_dim"}
SUMS = frozenset({"reduce", "reduce_sum", "reduce_max", "reduce_min"})
FLOATS = frozenset(map(np.dtype, ("float32", "float64")))
# XLA joins no loop that reads 20 arrays and numbers. Joined loops read together what each reads alone.
MOST = 17  # that a first use may read
FEW = 6  # that any other may; numbers above are packed into one array


def separated(fn: Callable) -> Callable:
    """The function, of trees of arrays: compiled where `placement.joins_loops`, it computes each result by itself.

    Derivatives are those of the function as it is.
    """

    def apart(*args: Any, **extra: Any) -> Any:
        if not joins_loops() or not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(args)):
            return fn(*args, **extra)
        closed, shape = jax.make_jaxpr(lambda *args: fn(*args, **extra), return_shape=True)(*args)
        if closed.effects:  # those would be lost
            return fn(*args, **extra)
        n = len(closed.consts)
        results = jax.custom_jvp(lambda *xs: _each_alone(closed, xs))
        as_it_is = lambda *xs: jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, xs[:n]))(*xs[n:])
        results.defjvp(lambda primals, tangents: jax.jvp(as_it_is, primals, tangents))
        return jax.tree.unflatten(jax.tree.structure(shape), results(*closed.consts, *jax.tree.leaves(args)))

    return apart


def _each_alone(closed: ClosedJaxpr, args: Sequence[Array]) -> list[Any]:
    inputs, results = taken_apart(closed, platform="cpu", barred=lambda x: not _is_by_entries(x))
    program = _Program({id(value): x for value, x in zip(inputs, args, strict=True)})
    _, values = between(results, program.known)
    elsewhere = {id(y) for x in values if x.operation and x.operation.name not in SUMS for y in x.operands}
    elsewhere |= set(map(id, results))
    for x in values:
        # in another shape for sums alone, an array is a part of what is summed
        is_of_sums = x.operation is not None and x.operation.name == "reshape" and id(x) not in elsewhere
        if not _is_by_entries(x) and not is_of_sums:
            program.carry_out(x)
    return [program.alone([x])[0] for x in results]


def _alone_in(closed: ClosedJaxpr) -> Callable:
    return lambda *args: _each_alone(closed, [*closed.consts, *args])


class _Program:
    """A program, as far as it was carried out.

    Attributes:
      known: by their `id`, values that are computed once for all their uses.
    """

    def __init__(self, known: dict[int, Any]):
        self.known, self.done, self.compiled, self.numbers = known, {}, {}, {}
        self.uses, self.unlike = Counter(), itertools.count()

    def carry_out(self, x: Value) -> None:
        """Computes a value, once: of a sum, the arrays for this sum alone."""
        operation = x.operation
        assert operation is not None, "an argument is not given"
        if id(operation) not in self.done:
            if operation.name in SUMS:
                found = operation.carried_out(self.alone(operation.operands, is_sum=True))
            elif operation.name == "cond":
                index, *operands = map(self._once, operation.operands)
                found = jax.lax.switch(
                    index, [_alone_in(branch) for branch in operation.parameters["branches"]], *operands
                )
            else:
                found = operation.carried_out([*map(self._once, operation.operands)])
            self.done[id(operation)] = found
        self.known[id(x)] = self.done[id(operation)][x.place]

    def _once(self, x: Any) -> Any:
        if isinstance(x, Value) and id(x) not in self.known:
            ends, _ = between([x], self.known)
            (self.known[id(x)],) = compute([x], {id(y): self.known[id(y)] for y in ends})
        return self.known[id(x)] if isinstance(x, Value) else x

    def alone(self, values: Sequence[Any], is_sum: bool = False) -> list[Any]:
        """Values, computed together, for one use."""
        ends, inner = between(values, self.known)
        if not inner:
            return [self._once(x) for x in values]
        arrays = [id(x) for x in ends if _is_large(x)]
        use = max((self.uses[key] for key in arrays), default=0)
        self.uses |= dict.fromkeys(arrays, use + 1)
        cone, found = _Cone(ends, inner, values), [self.known[id(x)] for x in ends]
        if use == 0 and (is_sum or cone.reads <= MOST):
            return self._compiled(cone, cone.plain)(found)
        if is_sum or cone.reads > FEW:
            return self._compiled(cone, cone.packed)(found, next(self.unlike))
        numbers = [self._number(cone.constants[key], use) for key in cone.first]
        return self._compiled(cone, cone.marked)(found, numbers, [self._number(x.type(1), use) for x in cone.dtypes])

    def _compiled(self, cone: "_Cone", function: Callable) -> Callable:
        """One trace for all cones of a form."""
        return self.compiled.setdefault((cone.form, function.__name__), jax.jit(function))

    def _number(self, x: np.generic, use: int) -> Array:
        """A number of which XLA does not know that it is that of another use.

        A power of two, and not 1, passes the barrier, or the barriers of all uses would be one.
        """
        key = x.dtype, str(x), use
        if key not in self.numbers:
            power = jnp.asarray(2.0 ** (1 + (use - 1) % 100), x.dtype)
            one = jax.lax.optimization_barrier(power) * (1 / power)
            self.numbers[key] = one * x
        return self.numbers[key]


class _Cone:
    """How values are computed from what is at the ends.

    Attributes:
      form: what cones agree in that compute the same.
      reads: how many arrays and numbers they are computed from.
      constants: by what stands for them.
      first: those that meet what is at the ends, and nothing else.
      dtypes: of what may be multiplied by 1.
    """

    def __init__(self, ends: list[Value], inner: list[Value], values: Sequence[Any]):
        self.places = {id(x): i for i, x in enumerate([*ends, *inner])}
        self.constants: dict[Any, Any] = {}
        self.operations = [x.operation for x in inner if x.operation]
        self.steps = [tuple(map(self._reference, operation.operands)) for operation in self.operations]
        self.values = tuple(map(self._reference, values))
        self.reads, self.ends = len(ends) + len(self.constants), len(ends)
        self.dtypes = sorted({x.dtype for x in (*ends, *self.constants.values())} & FLOATS, key=str)
        meeting = {x for step in self.steps if not any(map(self._is_inner, step)) for x in step}
        self.first = [key for key in self._numbers(FLOATS) if key in meeting]
        types = tuple((x.shape, x.dtype) for x in ends)
        self.form = types, tuple(map(_form, self.operations)), tuple(self.steps), self.values

    def _reference(self, x: Any) -> Any:
        """What stands for a value or a constant: a place, or text."""
        if isinstance(x, Value):
            return self.places[id(x)]
        key = f"{x.dtype} {x!s}" if isinstance(x, np.generic) else str(id(x))
        self.constants[key] = x
        return key

    def _is_inner(self, reference: Any) -> bool:
        return isinstance(reference, int) and reference >= self.ends

    def _numbers(self, dtypes: Any) -> list[Any]:
        return [key for key, x in self.constants.items() if isinstance(x, np.generic) and x.dtype in dtypes]

    def plain(self, found: list[Array]) -> list[Array]:
        """The values, from what is at the ends."""
        return self._computed(found, {}, {})

    def marked(self, found: list[Array], numbers: list[Array], ones: list[Array]) -> list[Array]:
        """The values, from other numbers in the place of the first ones."""
        return self._computed(found, dict(zip(self.first, numbers, strict=True)), self._by_dtype(ones))

    def packed(self, found: list[Array], unlike: Array) -> list[Array]:
        """The values, from numbers that lie in one array behind a barrier, beside one that no other array has."""
        found, numbers, ones = list(found), {}, []
        scalars = [i for i, x in enumerate(found) if x.shape == ()]
        for dtype in self.dtypes:
            keys = self._numbers({dtype})
            places = [i for i in scalars if found[i].dtype == dtype and len(scalars) > FEW]
            row = [np.array([1, *(self.constants[key] for key in keys)], dtype), *(found[i][None] for i in places)]
            row = jax.lax.optimization_barrier(jnp.concatenate([*row, jnp.asarray([unlike], dtype)]))
            one, *packed = row[:-1]
            numbers |= zip(keys, packed[: len(keys)], strict=True)
            ones.append(one)
            for i, x in zip(places, packed[len(keys) :], strict=True):
                found[i] = x
        return self._computed(found, numbers, self._by_dtype(ones))

    def _by_dtype(self, ones: list[Array]) -> dict[Any, Array]:
        return dict(zip(self.dtypes, ones, strict=True))

    def _computed(self, found: list[Array], numbers: dict[Any, Array], ones: dict[Any, Array]) -> list[Array]:
        """The values. An operation on what is at the ends that reads none of the numbers, reads an array times 1."""
        known = dict(enumerate(found)) | self.constants | numbers
        for i, (operation, step) in enumerate(zip(self.operations, self.steps, strict=True), start=self.ends):
            operands = [known[x] for x in step]
            if ones and not any(x in numbers or self._is_inner(x) for x in step):
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


def _is_by_entries(x: Any) -> bool:
    """Whether a value is a large array that is computed entry by entry."""
    return _is_large(x) and x.operation is not None and x.operation.name in BY_ENTRIES


def _is_large(x: Value) -> bool:
    return math.prod(x.shape) >= LEAST

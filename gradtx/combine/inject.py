"""Hyperparameters in the state, for programs that read and set them there."""

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from gradtx.clock import start, tick, time
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.recipe import Recipe
from gradtx.value import Function, Value, part, state, static, value


class StatefulSchedule(Protocol):
    """The type of a schedule with a state of its own, which may read the extra arguments of `update`."""

    def init(self) -> Any:
        """The state before the first update."""
        ...

    def update(self, state: Any, **extra_args: Any) -> Any:
        """The next state."""
        ...

    def __call__(self, state: Any, **extra_args: Any) -> Array:
        """The value now."""
        ...


@state
class WrappedScheduleState(NamedTuple):
    """State of a `WrappedSchedule`."""

    count: Array  # int32 scalar: updates made so far


@value
class WrappedSchedule(Value):
    """A plain schedule as a `StatefulSchedule`, whose state is the count."""

    schedule_fn: Callable[[Any], Any] = part(convert=lambda owner, name, x: Function(x) if _is_plain(x) else x)

    def init(self) -> WrappedScheduleState:
        """The count before the first update."""
        return WrappedScheduleState(start())

    def update(self, state: WrappedScheduleState, **extra_args: Any) -> WrappedScheduleState:
        """The next count."""
        return WrappedScheduleState(tick(state.count))

    def __call__(self, state: WrappedScheduleState, **extra_args: Any) -> Array:
        """The schedule's value now."""
        return self.schedule_fn(state.count)


@state
class InjectStatefulHyperparamsState(NamedTuple):
    """State of what `inject_hyperparams` makes."""

    count: Array  # int32 scalar: updates made so far
    hyperparams: dict[str, Array]  # what was used last; numbers may be set, schedules write their values here
    hyperparams_states: dict[str, Any]  # of the schedules
    inner_state: State


@state
class InjectHyperparamsState(NamedTuple):
    """An older form of `InjectStatefulHyperparamsState`, for programs that ask for its class."""

    count: Array
    hyperparams: dict[str, Array]
    inner_state: State


def inject_hyperparams(
    inner_factory: Callable[..., Any],
    static_args: str | Sequence[str] = (),
    hyperparam_dtype: DTypeLike | None = None,
) -> Callable[..., GradientTransformation]:
    """Makes a factory whose numbers lie in the state, where a program reads and sets them.

        tx = inject_hyperparams(adamw)(learning_rate=1e-3)
        state = tx.init(params)
        state.hyperparams["learning_rate"] = 1e-4

    With gradtx that needs no wrapper: a transformation is an argument of `jit`, and another one with another rate
    compiles nothing. This is for programs that were written so.

    Numbers and arrays become arrays in the state, defaults too. A function is a schedule: its value at the count of
    updates is computed anew for each, and written there. What is compiled in stays as it is: bools, strings, None,
    functions whose argument is named like a mask or ends in "_fn", and whole numbers whose default is a whole number,
    such as a size.

    Args:
      inner_factory: such as `adamw`, gradtx's or another library's; a function that calls several will do.
      static_args: names of further arguments that are compiled in.
      hyperparam_dtype: of the numbers; None is float32, or float64 where that is JAX's default. Whatever the
        parameters' dtype: below float32 a decay of 0.999 would be 1.

    Returns:
      A factory with the same arguments.

    Raises:
      ValueError: `static_args` names what is no argument.
    """
    names = {static_args} if isinstance(static_args, str) else set(static_args)
    signature = inspect.signature(inner_factory)
    if unknown := names - set(signature.parameters):
        raise ValueError(f"`inject_hyperparams`: static_args has {sorted(unknown)}, which are no arguments.")

    @functools.wraps(inner_factory)
    def factory(*args: Any, **kwargs: Any) -> GradientTransformation:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        numbers, fixed = {}, {}
        for name, x in _each_argument(bound):
            kept = name in names or _is_fixed(x, name, signature.parameters.get(name))
            if kept:
                fixed[name] = x
            else:
                numbers[name] = WrappedSchedule(x) if callable(x) and not _is_stateful(x) else x
        written = repr(Recipe("", args, kwargs))
        return Injected(Function(inner_factory), numbers, _Fixed(fixed), hyperparam_dtype, written)

    return factory


inject_stateful_hyperparams = inject_hyperparams  # its older name


def _each_argument(bound: inspect.BoundArguments) -> list[tuple[str, Any]]:
    found = []
    for name, x in bound.arguments.items():
        kind = bound.signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_POSITIONAL and x:
            raise ValueError(f"`inject_hyperparams`: the factory takes *{name}; give its arguments by name.")
        found += list(x.items()) if kind is inspect.Parameter.VAR_KEYWORD else [(name, x)]
    return [(name, x) for name, x in found if not (isinstance(x, tuple) and x == () and name == "args")]


def _is_fixed(x: Any, name: str, parameter: inspect.Parameter | None) -> bool:
    """Whether an argument is compiled in."""
    default = parameter.default if parameter else inspect.Parameter.empty
    if isinstance(x, int) and not isinstance(x, bool):
        return isinstance(default, int)
    if callable(x):
        return "mask" in name or name.endswith("_fn") or isinstance(x, type)
    return not isinstance(x, (float, jax.Array, np.ndarray, np.generic)) or isinstance(x, np.bool_)


def _is_plain(x: Any) -> bool:
    return callable(x) and jax.tree_util.all_leaves([x])


def _is_stateful(x: Any) -> bool:
    return callable(x) and hasattr(x, "init") and hasattr(x, "update")


class _Fixed(dict):
    """Arguments that are compiled in: hashed by their names, compared by what they are."""

    def __hash__(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        return hash(tuple(sorted(self)))


@transformation
class Injected(GradientTransformation):
    """What a factory from `inject_hyperparams` makes."""

    factory: Function = static()
    numbers: Any = part()
    fixed: Any = static()
    hyperparam_dtype: Any = static(default=None)
    written: str = static(default="")

    def init(self, params):
        states = {name: x.init() for name, x in self.numbers.items() if _is_stateful(x)}
        values = self._values(states, {}, {})
        return InjectStatefulHyperparamsState(start(), values, states, self._made(values).bare_init(params))

    def update(self, updates, state, params=None, **extra):
        values = self._values(state.hyperparams_states, state.hyperparams, extra)
        with time(state.count):
            inner = self._made(values)
            updates, inner_state = inner.bare_update(updates, state.inner_state, params, **extra)
        states = {name: self.numbers[name].update(x, **extra) for name, x in state.hyperparams_states.items()}
        return updates, InjectStatefulHyperparamsState(tick(state.count), values, states, inner_state)

    def eval_params(self, state, params):
        return self._made(state.hyperparams).eval_params(state.inner_state, params)

    @property
    def inner(self) -> GradientTransformation:
        """What the factory makes of the numbers at the first update."""
        states = {name: x.init() for name, x in self.numbers.items() if _is_stateful(x)}
        return self._made(self._values(states, {}, {}))

    def _values(self, states: dict, before: dict, extra: dict) -> dict[str, Array]:
        """The numbers as they are now: those of schedules anew, the others from the state, or as given at first."""

        def now(name, x):
            if name in states:
                return self._array(x(states[name], **extra))
            return self._array(before.get(name, x))

        return {name: now(name, x) for name, x in self.numbers.items()}

    def _array(self, x: Any) -> Array:
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.floating):
            return x
        return x.astype(self.hyperparam_dtype or jnp.result_type(float))

    def _made(self, values: dict[str, Any]) -> GradientTransformation:
        return as_transformation("inject_hyperparams", "inner_factory", self.factory(**self.fixed, **values))

    def __repr__(self) -> str:
        return f"inject_hyperparams({self.factory.function.__name__}){self.written}"

"""The contract: a gradient transformation is a pure `(init, update)` pair, and a value."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, TypeAlias, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise, paths
from gradtx.calls import given_what_it_names, public
from gradtx.clock import ClockState, held, start
from gradtx.collectives import AxisError
from gradtx.partial import on_part
from gradtx.placement import outside_of_types, place_beside
from gradtx.recipe import Recipe
from gradtx.separate import separated
from gradtx.types import OptState, Params, Updates
from gradtx.value import Value, flag, number, part, state, static, storage_dtype, value, whole

State: TypeAlias = OptState
Class = TypeVar("Class", bound=type)


@state
class EmptyState(NamedTuple):
    """The state of a transformation that remembers nothing."""


def _init(self: "GradientTransformation", params: Params) -> State:
    """The state before the first update. Reads shapes and dtypes only: `jax.ShapeDtypeStruct`s will do."""
    state = self.bare_init(leafwise.floats(params))
    return place_beside(leafwise.strong(state), params)


def _update(
    self: "GradientTransformation", updates: Updates, state: State, params: Params | None = None, **extra: Any
) -> tuple:
    """The transformed updates, float32 or wider, and the next state.

    Args:
      updates: gradients, or what the transformation before this one made of them. Those of a floating parameter may be
        integers, such as votes; without `params` that cannot be known, and they are an error.
      state: from `init`, or from the last `update`. What remembers nothing but the time takes None and `EmptyState()`,
        and returns them; it can then have no schedule.
      params: the parameters now; some transformations read them.
      **extra: whatever the caller has; each transformation takes what it uses. `value_fn` and `grad_fn` are
        functions of the parameters, that return a scalar and its gradients.

    Raises:
      ValueError: a leaf is missing or has the wrong shape, or `params` is missing and needed.
    """
    try:
        if params is not None and not self.of_examples:
            paths.check_match(updates, params)
        incoming, wide_params = leafwise.gradients(updates, params), leafwise.widen(leafwise.floats(params))
        known, update = leafwise.widen(_dated(self, state)), separated(self.bare_update)
        outgoing, new_state = update(incoming, known, wide_params, **on_part(extra, params))
        if not self.of_examples:
            paths.check_shapes(outgoing, incoming)
        elif params is not None:
            paths.check_match(outgoing, params)
        new_state = state if _is_nothing(state) else leafwise.cast_like(new_state, state)
        return _with_untouched(outgoing, incoming, updates, params), new_state
    except (AxisError, paths.MismatchError) as error:
        raise ValueError(f"`{self.name}`: {error}.") from error.__cause__
    except (AttributeError, KeyError, TypeError) as error:
        leaves = leafwise.floats(updates if params is None else params)
        found, expected = (paths.outline(x) for x in (state, jax.eval_shape(self.bare_init, leaves)))
        if found == expected:
            raise
        raise ValueError(
            f"`{self.name}`: the state is not what its `init` makes: got {found}, expected {expected}."
        ) from error


def _dated(self: "GradientTransformation", state: State) -> State:
    """The state; of no time where there is none and nothing else is remembered."""
    is_clock = type(self).bare_init is GradientTransformation.bare_init
    return ClockState(None) if is_clock and _is_nothing(state) else state  # pyright: ignore[reportArgumentType]


def _is_nothing(state: State) -> bool:
    return state is None or (isinstance(state, tuple) and not state)


def _bare(formula: Callable) -> Callable:
    """What is written in a class as a method that holds its numbers and gives it what it names."""
    call = given_what_it_names(formula)

    @functools.wraps(formula)
    def bare(self: "GradientTransformation", *args: Any, **extra: Any) -> Any:
        return call(held(self, scalars=True), *args, **extra)

    return bare


class GradientTransformation(Value):
    """A pure pair of functions that turns gradients into updates, and an immutable value.

        state = tx.init(params)
        updates, state = tx.update(updates, state, params, **extra)

    `update` accepts any keyword argument (`value=`, `grad=`, `value_fn=`, `key=`, ...) and ignores what it does not
    use. `init, update = tx` unpacks the pair. A transformation is a pytree whose leaves are its numeric
    hyperparameters: pass it through `jit` as an argument and a new learning rate compiles nothing, through `vmap`
    stacked and a grid of rates is one program, through `grad` and the rate has a gradient. It is equal to, hashes
    like, and prints as, the code that builds it.

    To write one, subclass and decorate with `@transformation`; write `init` and `update`, or `update` alone for a
    transformation that remembers nothing but the time (`ClockState`). What is written there is the bare formula;
    what is called by users goes around it and keeps the numeric rule, for every method alike:

    - compute wide: `update` sees floating arrays as float32 or wider, and returns such updates;
    - store as chosen: the state keeps the structure, shapes, dtypes and shardings that `init` chose, and no weak types;
    - leaves whose parameter is None or not floating (integers, random keys) are passed over: no state, no work.

    A formula is given those of the arguments that it names; `super().update(...)` in it is the formula that it extends.
    A hyperparameter is one number, or a schedule; `clock.at` gives its value now, inside its interval.

    `GradientTransformation(init, update)` makes one from two plain functions, with the same rule.
    """

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        made: Any = _FromFunctions if cls is GradientTransformation else cls
        return super().__new__(made)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        for name, rule in (("init", _init), ("update", _update)):
            formula = getattr(cls, name)
            if not hasattr(formula, "goes_around"):  # it was written in this class, or in one mixed in
                bare = _bare(formula)
                setattr(cls, f"bare_{name}", bare)
                setattr(cls, name, public(name, rule, bare))

    def bare_init(self, params: Params) -> State:
        """`init` as written, for combinators."""
        return ClockState(start())

    def bare_update(self, updates: Updates, state: State, params: Params | None = None, **extra: Any) -> tuple:
        """`update` as written, on wide arrays, for combinators: they widen once for all their links."""
        raise TypeError(f"`{type(self).__name__}` has no `update`: write one in the class.")

    def state_at(self, count: Array) -> State:
        """For combinators: the state at a time, of a transformation that remembers nothing else."""
        return ClockState(count)

    def eval_params(self, state: State, params: Params) -> Params:
        """The parameters to evaluate with, where they are not the ones that are trained: see `gradtx.eval_params`."""
        return params

    init = public("init", _init, bare_init)
    update = public("update", _update, bare_update)

    @property
    def name(self) -> str:
        """What errors and a chain's state call it."""
        return type(self).__name__

    @property
    def of_examples(self) -> bool:
        """Whether it takes the gradient of each example, along axes which the updates that it returns have not."""
        return any(x.of_examples for x in members(self))

    def __iter__(self) -> Iterator[Callable]:
        return iter((self.init, self.update))

    def __getitem__(self, place: Any) -> Any:
        return (self.init, self.update)[place]


def members(tx: Any) -> list[GradientTransformation]:
    """The transformations directly in a transformation."""
    is_one = lambda x: isinstance(x, GradientTransformation)
    return [x for x in jax.tree.leaves(tx, is_leaf=lambda x: x is not tx and is_one(x)) if is_one(x)]


@dataclass_transform(frozen_default=True, field_specifiers=(number, part, static, whole, flag, storage_dtype))
def transformation(cls: Class) -> Class:
    """Makes a subclass of `GradientTransformation` a value: a frozen dataclass, a pytree of its numbers.

    Annotate a numeric hyperparameter `x: Hyperparameter = number(default=0.9, within="[0, 1)")`, a flag
    `x: bool = flag(default=False)`, other structure `x: str = static(default="a")`, a part that is itself a value or an
    array `x: Any = part()`. The fields' makers are in `gradtx.value`.
    """
    return value(cls)


@transformation
class _FromFunctions(GradientTransformation):
    """What `GradientTransformation(init, update)` returns. Equal to another made of the same two functions."""

    init_fn: Callable = static()
    update_fn: Callable = static()

    def __init__(self, init: Callable, update: Callable) -> None:
        for name, function in (("init", init), ("update", update)):
            if not callable(function):
                raise TypeError(f"`GradientTransformation`: {name} must be a function, got {function!r}.")
            object.__setattr__(self, f"{name}_fn", function)

    def init(self, params):
        return self.init_fn(params)

    def update(self, updates, state, params=None, **extra):
        return outside_of_types(given_what_it_names(self.update_fn), updates, state, params, **extra)

    @property
    def name(self) -> str:
        owner = getattr(self.update_fn, "__qualname__", type(self.update_fn).__name__)
        return owner.split(".")[0].strip("<>")  # scale_by_adam.<locals>.update_fn -> scale_by_adam

    def recipe(self) -> Any:
        return Recipe("GradientTransformation", (self.init_fn, self.update_fn))


def as_transformation(owner: str, name: str, tx: Any) -> GradientTransformation:
    """`tx` itself, or a foreign `(init, update)` pair (an Optax transformation) as a `GradientTransformation`."""
    if isinstance(tx, GradientTransformation):
        return tx
    if callable(getattr(tx, "init", None)) and callable(getattr(tx, "update", None)):
        return _FromFunctions(tx.init, tx.update)
    hint = ": call it to build one" if callable(tx) else ""
    raise TypeError(
        f"`{owner}`: {name} must be a gradient transformation, got {tx!r} of type {type(tx).__name__}{hint}."
    )


GradientTransformationExtraArgs = GradientTransformation  # one type: every `update` takes any keyword argument


def require_params(params: Params | None, tx: GradientTransformation) -> Params:
    """`params`, or an error that names the transformation that reads them."""
    if params is None:
        raise ValueError(f"`{tx.name}` reads the parameters: call `update(updates, state, params)`.")
    return params


def eval_params(tx: Any, state: State, params: Params) -> Params:
    """The parameters to evaluate the model with: the average that a schedule-free method or another keeps, or `params`.

    Args:
      tx: the transformation that trains, of any depth: chains, masks, partitions, accumulation hand the question on.
      state: its state now.
      params: the parameters now, at which gradients are taken.
    """
    return as_transformation("eval_params", "tx", tx).eval_params(state, params)


def _with_untouched(outgoing: Updates, incoming: Updates, updates: Updates, params: Params | None) -> Updates:
    """Fills the places of leaves that were passed over: zeros where the parameter is a number, else the update."""

    def leaf(u, passed, new, p):
        if passed is not None:
            return new
        return jnp.zeros_like(p) if hasattr(p, "dtype") and jnp.issubdtype(p.dtype, jnp.number) else u

    return leafwise.choose(leaf, updates, incoming, outgoing, updates if params is None else params)

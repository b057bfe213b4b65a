"""Values: immutable dataclasses that are pytrees and that compare, hash and print by what they hold.

A value's numeric fields are the leaves of its pytree; its `static` fields are part of the structure. So a value goes
through `jit` as an argument without its numbers being compiled in, through `vmap` stacked, through `grad`; and two
values built the same way are equal and hash alike, so that one may stand for the other as a static argument.
"""

import dataclasses
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar, cast, dataclass_transform

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.export import register_namedtuple_serialization

from gradtx.interval import Interval
from gradtx.recipe import PrintsAsCode, Recipe

Class = TypeVar("Class", bound=type)


def number(
    *,
    default: Any = dataclasses.MISSING,
    within: str = "(-inf, inf)",
    integer: bool = False,
    optional: bool = False,
    kw_only: bool = False,
) -> Any:
    """A numeric field, a leaf of the pytree: a number, an array, or (unless `integer`) a schedule.

    Args:
      within: the interval the number must lie in, such as "[0, 1)", also when rounded to the precision that it is
        computed in. Checked when the value is built, for numbers and for arrays whose entries are known. What only the
        program knows, a schedule's value or a traced array, counts as the nearest number inside (`clock.held`).
      integer: a count of steps; kept an int.
      optional: None is allowed.

    A scalar array becomes a Python number: so a value can be hashed, printed, and kept by others as static. A
    distribution to search (`gradtx.tuning`: a pytree with `support`, a tuple) passes too, in an integer field where it
    is `discrete`; its leaves, the bounds or the choices, are checked and stored like numbers.
    """
    interval = Interval(within)

    def convert(owner: str, name: str, x: Any) -> Any:
        entries = _entries(x)
        if entries and jnp.ndim(x) == 0:
            (x,) = entries
        if isinstance(x, (int, float)) and not isinstance(x, bool):
            if integer and not float(x).is_integer():
                raise ValueError(f"`{owner}`: {name} must be a whole number, got {x!r}.")
            check(owner, name, x)
            return int(x) if integer else float(x)
        for entry in entries:
            check(owner, name, entry)
        if (x is None and optional) or isinstance(x, (jax.Array, np.ndarray, jax.ShapeDtypeStruct)):
            return x
        if isinstance(getattr(x, "support", None), tuple) and (not integer or getattr(x, "discrete", False)):
            return jax.tree.map(lambda bound: convert(owner, name, bound), x)
        if not integer and callable(x) and not isinstance(x, type):
            return Function(x) if jax.tree_util.all_leaves([x]) else x
        wanted = "a whole number" if integer else "a number, an array or a schedule (a function of the step)"
        raise TypeError(f"`{owner}`: {name} must be {wanted}, got {x!r} of type {type(x).__name__}.")

    def check(owner: str, name: str, x: float) -> None:
        if x not in interval:
            raise ValueError(f"`{owner}`: {name} must {interval.rule(x)}, got {x!r}.")
        dtype = jnp.result_type(float)
        with np.errstate(over="ignore"):
            rounded = x if integer else float(dtype.type(x))
        if rounded not in interval:
            rule = f"{name} must {interval.rule(rounded)}"
            raise ValueError(f"`{owner}`: {rule}, got {x!r}, which is {rounded!r} in {dtype.name}.")

    return dataclasses.field(default=default, kw_only=kw_only, metadata={"convert": convert, "interval": interval})


def part(*, default: Any = dataclasses.MISSING, convert: Callable[[str, str, Any], Any] | None = None) -> Any:
    """A field that is itself a pytree: other values, an array, a key."""
    return dataclasses.field(default=default, metadata={"convert": convert})


def static(
    *,
    default: Any = dataclasses.MISSING,
    one_of: tuple = (),
    convert: Callable[[str, str, Any], Any] | None = None,
    kw_only: bool = False,
) -> Any:
    """A field of the structure, hashable: a flag, a name, a dtype. It is compiled in.

    Args:
      one_of: the values allowed, checked when the value is built.
      convert: makes the stored form from (owner's name, field's name, argument).
    """

    def chosen(owner: str, name: str, x: Any) -> Any:
        if one_of and not any(x is choice or (x == choice and type(x) is type(choice)) for choice in one_of):
            raise ValueError(f"`{owner}`: {name} must be one of {one_of}, got {x!r}.")
        return convert(owner, name, x) if convert else x

    return dataclasses.field(default=default, kw_only=kw_only, metadata={"static": True, "convert": chosen})


def whole(*, default: Any = dataclasses.MISSING, within: str) -> Any:
    """A static field that is a whole number within an interval: it decides shapes, or how much is unrolled."""
    checked = number(within=within, integer=True).metadata["convert"]

    def convert(owner: str, name: str, x: Any) -> int:
        x = checked(owner, name, x)
        if not isinstance(x, int):
            raise TypeError(f"`{owner}`: {name} is compiled in and must be a Python integer, got {x!r}.")
        return x

    return static(default=default, convert=convert)


def flag(*, default: bool, kw_only: bool = False) -> Any:
    """A static field that is True or False."""
    return static(default=default, one_of=(True, False), kw_only=kw_only)


def storage_dtype(*, default: None = None, kw_only: bool = False) -> Any:
    """A static field that names a dtype of storage; None means float32 or wider."""

    def convert(owner: str, name: str, x: Any) -> str | None:
        if x is None:
            return None
        try:
            dtype = jnp.dtype(x)
        except TypeError as error:
            raise TypeError(f"`{owner}`: {name} must be a dtype or None, got {x!r}.") from error
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise TypeError(f"`{owner}`: {name} must be a floating dtype, got {dtype.name}.")
        return dtype.name

    return static(default=default, convert=convert, kw_only=kw_only)


class Value(PrintsAsCode):
    """Base of the classes made by `@value`. A subclass of one that is not decorated is made one when first called."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        if "made_a_value" not in vars(cls):
            value(cls)
        return object.__new__(cls)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            if convert := field.metadata.get("convert"):
                converted = convert(type(self).__name__, field.name, getattr(self, field.name))
                object.__setattr__(self, field.name, converted)

    def __eq__(self, other: object) -> bool:
        if type(self) is not type(other):
            return NotImplemented
        (mine, structure), (theirs, other_structure) = jax.tree.flatten(self), jax.tree.flatten(other)
        return structure == other_structure and all(map(_same, mine, theirs))

    def __hash__(self) -> int:
        leaves, structure = jax.tree.flatten(self)
        try:
            return hash((structure, *leaves))
        except TypeError:
            raise TypeError(
                f"`{type(self).__name__}` holds an array, and arrays have no hash: pass it to `jit` as an argument, "
                f"not as a static one, or build it from Python numbers. It is {self!r}."
            ) from None

    def recipe(self) -> Any:
        shown, name = {}, type(self).__name__
        for field in dataclasses.fields(self):  # pyright: ignore[reportArgumentType]
            x, default, convert = getattr(self, field.name), field.default, field.metadata.get("convert")
            if convert and default is not dataclasses.MISSING and not _same(x, default):
                with suppress(TypeError, ValueError):  # a default that another argument has to replace
                    default = convert(name, field.name, default)
            if not _same(x, default):
                shown[field.name] = x
        return Recipe(name, (), shown)


@dataclass_transform(frozen_default=True, field_specifiers=(number, part, static, whole, flag, storage_dtype))
def value(cls: Class) -> Class:
    """Makes a subclass of `Value` a frozen dataclass and registers it as a pytree.

    Unflattening does not pass through the constructor, so leaves may be replaced by anything: tracers, stacked
    arrays, the axes of a `vmap`.
    """
    own_init = "__init__" in vars(cls)
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False, init=not own_init)(cls)
    names = {is_static: [] for is_static in (True, False)}
    for field in dataclasses.fields(cls):
        names[field.metadata.get("static", False)].append(field.name)
    keys = [jax.tree_util.GetAttrKey(name) for name in names[False]]

    def flatten(x):
        return [getattr(x, name) for name in names[False]], tuple(getattr(x, name) for name in names[True])

    def flatten_with_keys(x):
        children, structure = flatten(x)
        return list(zip(keys, children, strict=True)), structure

    def unflatten(structure, children):
        x = object.__new__(cls)
        x.__dict__.update(zip((*names[False], *names[True]), (*children, *structure), strict=True))
        return x

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    cls.made_a_value = True
    return cls


@value
class Function(Value):
    """A plain callable as a value: no leaves, equal to another that wraps the same callable."""

    function: Callable = static()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def recipe(self) -> Any:
        return self.function


def state(cls: Class) -> Class:
    """Registers a named tuple with `jax.export`, so that a step can be written that has it among its arguments."""
    with suppress(ValueError):  # registered already: the module was loaded again
        register_namedtuple_serialization(cast(Any, cls), serialized_name=f"gradtx.{cls.__name__}")
    return cls


def known(x: Any) -> bool:
    """Whether it is an array whose entries can be read: not in a trace, not on another machine."""
    concrete = isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) and x.is_fully_addressable
    return concrete or isinstance(x, (np.ndarray, np.generic))


def _entries(x: Any) -> list:
    """The numbers in an array, if it is one and they are known."""
    return jax.device_get(x).ravel().tolist() if known(x) and jnp.issubdtype(x.dtype, np.number) else []


def _same(a: Any, b: Any) -> bool:
    if a is b:
        return True
    if isinstance(a, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return False
    if isinstance(a, (jax.Array, np.ndarray)) or isinstance(b, (jax.Array, np.ndarray)):
        alike = np.shape(a) == np.shape(b) and getattr(a, "dtype", None) == getattr(b, "dtype", None)
        return alike and bool(np.all(_content(a) == _content(b)))
    return type(a) is type(b) and bool(a == b)


def _content(x: Any) -> Any:
    """An array's entries, wherever it lies; a random key's words."""
    return jax.device_get(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)

"""From a value to plain data."""

import dataclasses
import inspect
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx.config.names import Names
from gradtx.recipe import PrintsAsCode, Recipe
from gradtx.value import known


def to_config(value: Any, names: Mapping[str, Any] | None = None) -> Any:
    """A transformation, a schedule, a search space or a tree of them as plain data: dicts, lists, strings and numbers.

        to_config(adamw(1e-3))
        {"chain": [{"scale_by_adam": {}}, {"add_decayed_weights": {"weight_decay": 0.0001}},
                   {"scale_by_learning_rate": {"learning_rate": 0.001}}]}

    `from_config` builds an equal value of it, also after JSON or YAML. What has its default is left out, as in what the
    value prints. An alias such as `adamw` is the chain that it returns.

    Args:
      value: what holds data and public names of gradtx alone.
      names: further classes and functions that it may hold, by the names to write for them; `from_config` is given the
        same.

    Raises:
      TypeError: it holds a function or a class without a name, or another object; its place is named.
    """
    return _Writer(Names("to_config", names)).data(value, "")


class _Writer:
    def __init__(self, names: Names) -> None:
        self.names = names

    def data(self, x: Any, at: str) -> Any:
        if x is None or isinstance(x, bool):
            return x
        if isinstance(x, str):
            if x == "...":
                raise ValueError(
                    f"`to_config`: {at} is '...', which stands for all others; as a pattern, write '.{{3}}'."
                )
            return str(x)
        if isinstance(x, (int, np.integer)):
            return int(x)
        if isinstance(x, (float, np.floating)):
            return float(x) if math.isfinite(x) else str(float(x))
        if x is ...:
            return "..."
        if isinstance(x, PrintsAsCode) or (dataclasses.is_dataclass(x) and not isinstance(x, type)):
            made = x.recipe() if isinstance(x, PrintsAsCode) else Recipe(type(x).__name__, (), _set_fields(x))
            return self.call(made, type(x), at) if isinstance(made, Recipe) else self.data(made, at)
        if isinstance(x, tuple) and hasattr(x, "_fields"):
            return self.call(Recipe(type(x).__name__, (), _set_items(x)), type(x), at)
        if isinstance(x, Mapping):
            return self.mapping(x, at)
        if isinstance(x, (list, tuple)):
            return [self.data(y, f"{at}[{i}]") for i, y in enumerate(x)]
        if isinstance(x, (jax.Array, np.ndarray)) and known(x) and _is_real(x.dtype):
            array = np.asarray(jax.device_get(x))
            return {"array": {"values": self.data(array.tolist(), at), "dtype": array.dtype.name}}
        if name := self.names.of(x):
            return {"function": name}
        raise TypeError(
            f"`to_config`: {at or 'it'} is {x!r}, and a config holds data and public names of gradtx. Give the object "
            'a name, here and to `from_config`: `names={"name": object}`.'
        )

    def mapping(self, x: Mapping, at: str) -> Any:
        place = lambda key: f"{at}.{key}" if at else str(key)
        if all(isinstance(key, str) for key in x):
            data = {str(key): self.data(y, place(key)) for key, y in x.items()}
            if not self.names.is_form(data):
                return data
        return {"dict": [[self.data(key, place(key)), self.data(y, place(key))] for key, y in x.items()]}

    def call(self, made: Recipe, kind: type, at: str) -> dict[str, Any]:
        name = self.name_of(made, kind, at)
        at = f"{at}.{name}" if at else name
        if not made.args:
            return {name: {key: self.data(x, f"{at}.{key}") for key, x in made.kwargs.items()}}
        bound = inspect.signature(self.names.find(name)).bind(*made.args, **made.kwargs)
        if bound.args and any(p.kind is p.VAR_POSITIONAL for p in bound.signature.parameters.values()):
            return {name: [self.data(x, f"{at}[{i}]") for i, x in enumerate(bound.args)]}
        return {name: {key: self.data(x, f"{at}.{key}") for key, x in bound.arguments.items()}}

    def name_of(self, made: Recipe, kind: type, at: str) -> str:
        """The name that a recipe has in a config: of a function that builds such a value, or of the class itself."""
        if made.name != kind.__name__ and self.names.builds(made.name):
            return made.name
        if name := self.names.of(kind):
            return name
        raise TypeError(
            f"`to_config`: {at or 'it'} is of the class {kind.__name__}, which has no public name in gradtx: give it "
            f'one, here and to `from_config`, `names={{"{kind.__name__}": {kind.__name__}}}`.'
        )


def _is_real(dtype: Any) -> bool:
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def _set_items(x: Any) -> dict[str, Any]:
    """The fields of a named tuple that have not their default."""
    return {name: y for name, y in x._asdict().items() if name not in x._field_defaults or y != x._field_defaults[name]}


def _set_fields(x: Any) -> dict[str, Any]:
    """The fields of a plain dataclass that have not their default."""
    fields = {field.name: (getattr(x, field.name), field.default) for field in dataclasses.fields(x)}
    return {name: y for name, (y, default) in fields.items() if y is not default and y != default}

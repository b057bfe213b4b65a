"""From plain data to a value."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.config import kinds
from gradtx.config.kinds import Kind, is_anything, is_mapping
from gradtx.config.names import Names, nearest
from gradtx.core import GradientTransformation


def from_config(config: Any, names: Mapping[str, Any] | None = None) -> Any:
    """Builds what `to_config` has written, or a person: an equal value.

        from_config({"adamw": {"learning_rate": {"rex_schedule": {"init_value": 1e-3, "decay_steps": 10_000}}}})
        from_config({"chain": [{"clip": {"max_delta": 1.0}}, "centralize", {"sgd": {"learning_rate": 0.1}}]})

    A call of a public name is a mapping with that name alone, from it to the arguments by name, or to a list of them.
    Where a transformation stands, a name alone is a call without arguments. Lists become tuples. Text in the place of a
    number or of a flag is read as one ("1e-3", which is text in YAML, or "true"); elsewhere it stays text. Nothing is
    evaluated: reachable are public names of gradtx that make values, and `names`. Objects pass as they are.

    Args:
      config: data.
      names: further functions and classes, by name: called as those of gradtx are, or meant by {"function": name}.

    Raises:
      ValueError: a name or an argument is unknown, and the nearest one is told; an argument is missing, or outside of
        its interval. The place is named, such as `chain[1].adamw.b1`.
      TypeError: an argument is of a wrong type; its place is named.
    """
    if not isinstance(config, (Mapping, str)):
        raise TypeError(
            f"`from_config`: config must be a mapping with one key, the name of what is called, got {config!r}."
        )
    return _Reader(Names("from_config", names)).value(config, "", GradientTransformation)


def by_name(name: str, /, **arguments: Any) -> Any:
    """Builds what has a public name, for command lines and tables: `by_name("adamw", learning_rate="1e-3", b2=0.95)`.

    Args:
      name: of a transformation, an alias or a schedule; Optax's paths, such as "contrib.muon", are good too.
      **arguments: its own, as objects or as in `from_config`: text in the place of a number or of a flag is read.

    Raises: as `from_config`.
    """
    return _Reader(Names("by_name", None)).called(name, arguments, "")


class _Reader:
    def __init__(self, names: Names) -> None:
        self.names, self.owner = names, names.owner

    def value(self, x: Any, at: str, kind: Kind) -> Any:
        """What data stands for in a place of that kind."""
        if isinstance(x, Mapping):
            return self.mapping(x, at, kind)
        if isinstance(x, list) or type(x) is tuple:
            each = zip(range(len(x)), x, kinds.of_elements(kind), strict=False)
            return tuple(self.value(y, f"{at}[{i}]", of) for i, y, of in each)
        if isinstance(x, str):
            return self.called(x, {}, at) if _is_transformation(kind) else kinds.read(x, kind)
        return x

    def mapping(self, x: Mapping, at: str, kind: Kind) -> Any:
        if self.names.is_form(x):
            ((name, inside),) = x.items()
            if name == "function":
                return self.function(inside, at)
            if name == "array":
                return self.array(inside, at)
            if name == "dict":
                return self.entries(inside, at, kind)
            if not is_mapping(kind):
                return self.called(name, inside, at, or_data=_takes_data(kind))
        if _takes_data(kind):
            return self.entries(list(x.items()), at, kind)
        if len(x) != 1:
            raise ValueError(
                f"`{self.owner}`: {at or 'config'} must be a mapping with one key, the name of what is called, got the "
                f"keys {list(x)}."
            )
        ((name, inside),) = x.items()
        return self.called(name, inside, at)

    def entries(self, pairs: Any, at: str, kind: Kind) -> dict:
        if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in pairs):
            raise TypeError(
                f"`{self.owner}`: {at}.dict must be a list of pairs, a key and a value each, got {pairs!r}."
            )
        of_key, of_value = kinds.of_entries(kind)
        pairs = [(self.value(key, at, of_key), y) for key, y in pairs]
        return {key: self.value(y, _join(at, key), of_value) for key, y in pairs}

    def called(self, name: Any, arguments: Any, at: str, *, or_data: bool = False) -> Any:
        """What a name makes of arguments, a mapping or a list; `or_data` where a plain mapping could stand, too."""
        if not self.names.builds(name):
            place = f"{at}: " if at else ""
            close = self.names.nearest(name, to_call=True)
            raise ValueError(f"`{self.owner}`: {place}gradtx has no {name!r} that could be called here.{close}")
        made, at = self.names.find(name), _join(at, name)
        signature, of = kinds.of_arguments(made)
        args, kwargs = (), {}
        if isinstance(arguments, Mapping):
            known = signature.parameters.values()
            named = [p.name for p in known if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
            takes_all = any(p.kind is p.VAR_KEYWORD for p in known)
            for key, x in arguments.items():
                if key not in named and not (takes_all and isinstance(key, str)):
                    plain = f' A mapping that is no call is {{"dict": [[{name!r}, ...]]}}.' if or_data else ""
                    raise ValueError(
                        f"`{self.owner}`: {at} has no argument {key!r}.{nearest(key, named)} "
                        f"It has {', '.join(named)}.{plain}"
                    )
                kwargs[key] = self.value(x, f"{at}.{key}", of.get(key, Any))
        elif isinstance(arguments, (list, tuple)):
            each = zip(range(len(arguments)), arguments, kinds.of_places(signature, of), strict=False)
            args = tuple(self.value(x, f"{at}[{i}]", kind) for i, x, kind in each)
        else:
            raise TypeError(f"`{self.owner}`: {at} must have its arguments as a mapping, or a list, got {arguments!r}.")
        try:
            signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ValueError(f"`{self.owner}`: {at}: {error}.") from None
        try:
            return made(*args, **kwargs)
        except (TypeError, ValueError) as error:
            place = next((f".{key}" for key in kwargs if f": {key} " in str(error)), "")
            kind = ValueError if isinstance(error, ValueError) else TypeError
            raise kind(f"`{self.owner}`: {at}{place}: {error}") from error

    def function(self, name: str, at: str) -> Callable:
        found = self.names.find(name)
        if not callable(found):
            close = self.names.nearest(name, to_call=False)
            raise ValueError(f"`{self.owner}`: {at}: gradtx has no function {name!r}, nor has `names`.{close}")
        return found

    def array(self, inside: Mapping, at: str) -> np.ndarray:
        try:
            values = np.array(inside["values"])
            values = values.astype(float) if values.dtype.kind == "U" else values  # "inf"
            return values.astype(jnp.dtype(inside["dtype"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"`{self.owner}`: {at}.array must have numbers as values, and a dtype: {error!r}."
            ) from error


def _join(at: str, name: Any) -> str:
    return f"{at}.{name}" if at else str(name)


def _takes_data(kind: Kind) -> bool:
    return (is_mapping(kind) or is_anything(kind)) and not _is_transformation(kind)


def _is_transformation(kind: Kind) -> bool:
    return GradientTransformation in kinds.members(kind)

"""What a codec is, and an array as one has stored it."""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.export import register_pytree_node_serialization

from gradtx.recipe import Recipe
from gradtx.value import Value


class Codec(Value):
    """A way to store an array of float32 in fewer bytes. A value: it compares, hashes and prints by its arguments.

    A subclass is made by `@value`, from static fields, and has the three methods below. Arrays in, arrays out; all must
    be traceable. What a codec makes of zeros must be stored zeros in every part.
    """

    @property
    def form(self) -> str:
        """What a checkpoint calls arrays stored so. Two codecs of one form read each other."""
        raise NotImplementedError

    def stores(self, x: Any) -> bool:
        """Whether an array, or a shape with a dtype, can be stored so and gets smaller."""
        return x.dtype in (jnp.float32, jnp.bfloat16, jnp.float16)

    def zeros(self, x: Any) -> tuple[Array, ...]:
        """The parts of zeros like an array: on its devices, each dimension sharded as the array's."""
        raise NotImplementedError

    def encode(self, x: Array, key: Array | None) -> tuple[Array, ...]:
        """The parts of an array of float32.

        Args:
          key: of `jax.random`, for those that round by chance.
        """
        raise NotImplementedError

    def decode(self, parts: tuple[Array, ...]) -> Array:
        """The array, float32."""
        raise NotImplementedError

    def recipe(self) -> Any:
        own = super().recipe()
        return Recipe(f"storage.{own.name}", own.args, own.kwargs)

    @property
    def rounds_by_chance(self) -> bool:
        """Whether `encode` reads its key."""
        return False


@jax.tree_util.register_pytree_with_keys_class
class Stored:
    """An array in a state, as a codec has stored it: a pytree of its parts, which knows the codec.

    The first part has the array's shape. Paths name the form, so a checkpoint says how to read it, and one of another
    form does not fit.

    Attributes:
      codec: static.
      parts: arrays.
    """

    def __init__(self, codec: Codec, parts: tuple[Any, ...]):
        self.codec, self.parts = codec, tuple(parts)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the array."""
        return self.parts[0].shape

    def decode(self) -> Array:
        """The array, float32."""
        return self.codec.decode(self.parts)

    def tree_flatten_with_keys(self) -> Any:
        names = [self.codec.form] + [f"part {i}" for i in range(1, len(self.parts))]
        return [(jax.tree_util.DictKey(name), x) for name, x in zip(names, self.parts, strict=True)], self.codec

    @classmethod
    def tree_unflatten(cls, codec: Codec, parts: Any) -> "Stored":
        made = object.__new__(cls)
        made.codec, made.parts = codec, tuple(parts)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stored) and (self.codec, self.parts) == (other.codec, other.parts)

    def __repr__(self) -> str:
        return f"Stored({self.codec!r}, {self.parts!r})"


def _written(codec: Codec) -> bytes:
    fields = {field.name: getattr(codec, field.name) for field in dataclasses.fields(codec)}  # pyright: ignore[reportArgumentType]
    return json.dumps([type(codec).__name__, fields]).encode()


def _read(written: bytes | bytearray) -> Codec:
    name, fields = json.loads(written)
    return next(made for made in _kinds(Codec) if made.__name__ == name)(**fields)


def _kinds(base: type) -> Iterator[type]:
    for made in base.__subclasses__():
        yield made
        yield from _kinds(made)


register_pytree_node_serialization(
    Stored, serialized_name="gradtx.Stored", serialize_auxdata=_written, deserialize_auxdata=_read
)


def is_stored(x: Any) -> bool:
    """Whether something is an array as a codec has stored it."""
    return isinstance(x, Stored)

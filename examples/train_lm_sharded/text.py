"""The text, and batches of it: each a pure function of the seed and the step."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import numpy as np
from jax import Array

from examples.train_lm_sharded.options import OptionError


@dataclass(frozen=True)
class Text:
    """Bytes to learn.

    Attributes:
      name: what to call them.
      data: uint8, one dimension.
    """

    name: str
    data: np.ndarray

    @property
    def digest(self) -> str:
        """Tells texts apart."""
        return hashlib.sha256(self.data.tobytes()).hexdigest()[:12]

    def batch(self, seed: int, step: int, rows: int, length: int, sharding: jax.sharding.Sharding) -> Array:
        """The batch of a step: `rows` pieces of `length` bytes from random places, int32.

        Every process knows all the places, and cuts the pieces that its own devices hold: the batch is the same on
        every mesh, and after a restart.
        """
        places = np.random.default_rng((seed, step)).integers(len(self.data) - length + 1, size=rows)

        def cut(index: Any) -> np.ndarray:  # a slice of rows, and one of places in them
            pieces = places[index[0], None] + np.arange(length)[index[1]]
            return self.data[pieces].astype(np.int32)

        return jax.make_array_from_callback((rows, length), sharding, cut)


def read_text(path: Path | None, length: int) -> Text:
    """The bytes of a file; None: Python's manual, as `help` shows it.

    Raises:
      OptionError: it cannot be read, or is shorter than `length`.
    """
    if path is None:
        manual = "\n".join(text for _, text in sorted(topics.items()))
        return Text("Python's manual", np.frombuffer(manual.encode(), np.uint8))
    try:
        data = np.frombuffer(path.read_bytes(), np.uint8)
    except OSError as error:
        raise OptionError(f"--text {path} cannot be read: {error.strerror}") from error
    if len(data) < length:
        raise OptionError(f"--text {path} has {len(data)} bytes, and a piece of --context + 1 has {length}")
    return Text(path.name, data)

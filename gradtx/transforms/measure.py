"""Measures of the updates that remember: averages over time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.combine.measure import nothing
from gradtx.core import GradientTransformation, Updates, transformation
from gradtx.recipe import Recipe
from gradtx.transforms.momentum import ema
from gradtx.value import part, static


@transformation
class Averaged(GradientTransformation):
    """What `measure_with_ema` returns: its updates are the average of what is measured, of whatever shape that is."""

    measure: Callable = static()
    average: Any = part()

    def init(self, params):
        return self.average.bare_init(nothing(self._floats, params))

    def update(self, updates, state, params=None, **extra):
        return self.average.bare_update(self._floats(updates), state)

    def _floats(self, updates: Updates) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x, jnp.result_type(float)), self.measure(updates))

    def recipe(self) -> Any:
        average = self.average
        return Recipe("measure_with_ema", (self.measure, average.decay, average.debias, average.accumulator_dtype))


def measure_with_ema(
    measure: Callable[[Updates], Any], decay: Any, debias: bool = True, accumulator_dtype: DTypeLike | None = None
) -> Averaged:
    """A measure for `monitor`: the exponential moving average of what a function says of the updates.

    Args:
      measure: from the updates to arrays; bools count as 0 and 1.
      decay, debias, accumulator_dtype: as in `ema`.
    """
    return Averaged(measure, ema(decay, debias, accumulator_dtype))

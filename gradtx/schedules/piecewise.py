"""Numbers that change at given steps: by jumps, or by way of lines and cosines."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import STEPS, Schedule
from gradtx.schedules.transition import half_cosine, through
from gradtx.value import number, part, static, value

Scales = Mapping[int, Hyperparameter] | None


def _as_scales() -> Any:
    """The conversion of {step: scale} or None to a sorted copy. Its scales are leaves, its steps are structure."""
    step, scale = (number(integer=True, within=STEPS), number(within="[0, inf)"))

    def convert(owner: str, name: str, x: Any) -> Scales:
        if x is not None and not isinstance(x, Mapping):
            raise TypeError(f"`{owner}`: {name} must be a dict {{step: scale}} or None, got {x!r}.")
        found = {}
        for boundary, factor in (x or {}).items():
            boundary = step.metadata["convert"](owner, f"a step of {name}", boundary)
            found[boundary] = scale.metadata["convert"](owner, f"{name}[{boundary}]", factor)
        return dict(sorted(found.items())) or None

    return convert


@value
class piecewise_constant_schedule(Schedule):
    """Returns a number that is multiplied by a scale at each of some steps.

        init_value times the scale of every boundary <= t

    Args:
      init_value: the value before the first boundary.
      boundaries_and_scales: {boundary: scale}, neither negative. Boundaries, in steps, are compiled in; scales are not.
        None: no change.
    """

    init_value: Hyperparameter = number()
    boundaries_and_scales: Scales = part(default=None, convert=_as_scales())

    def value_at(self, count):
        scales = self.boundaries_and_scales or {}
        x, *factors = arrays_at(count, self.init_value, *scales.values())
        for boundary, factor in zip(scales, factors, strict=True):
            x = x * jnp.where(count < boundary, 1.0, factor)
        return jnp.broadcast_to(x, jnp.broadcast_shapes(x.shape, count.shape))


@value
class piecewise_interpolate_schedule(Schedule):
    """Returns a curve through some points, straight or half a cosine wave between two of them.

    The points are (0, init_value) and, for each boundary in turn, (boundary, the value before it times its scale). The
    curve is constant after the last one. A scale at step 0 changes the first value.

    Args:
      interpolate_type: "linear" or "cosine".
      init_value: the value at count 0.
      boundaries_and_scales: {boundary: scale}, neither negative. Boundaries, in steps, are compiled in; scales are not.
        None: no change.
    """

    interpolate_type: str = static(one_of=("linear", "cosine"))
    init_value: Hyperparameter = number()
    boundaries_and_scales: Scales = part(default=None, convert=_as_scales())

    def value_at(self, count):
        scales = self.boundaries_and_scales or {}
        init, *factors = arrays_at(count, self.init_value, *scales.values())
        points, x = [], init
        for boundary, factor in zip(scales, factors, strict=True):
            x = x * factor
            points.append((boundary, x))
        return through(count, init, points, half_cosine if self.interpolate_type == "cosine" else None)

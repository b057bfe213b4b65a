"""One schedule after the other."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import STEPS, Schedule, Steps
from gradtx.value import number, part, value


def _each(field: Any):
    """A conversion of a sequence to a tuple, each element as `field` converts it."""

    def convert(owner: str, name: str, xs: Any) -> tuple:
        try:
            xs = tuple(xs)
        except TypeError as error:
            raise TypeError(f"`{owner}`: {name} must be a sequence, got {xs!r}.") from error
        return tuple(field.metadata["convert"](owner, f"{name}[{i}]", x) for i, x in enumerate(xs))

    return convert


@value
class join_schedules(Schedule):
    """Returns each schedule in turn, starting it at its boundary.

        schedules[0](t)                       t < boundaries[0]
        schedules[i](t - boundaries[i - 1])   boundaries[i - 1] <= t < boundaries[i]

    No schedule is called at a count outside its own part.

    Args:
      schedules: one or more; plain functions and numbers will do.
      boundaries: the steps at which the next one starts, one fewer than schedules, not decreasing. Where two are equal,
        the schedule between them is left out.

    Differs from Optax: there, schedules are called at negative counts too, whose infinities make gradients NaN; a wrong
      number of boundaries drops schedules; decreasing boundaries are taken.
    """

    schedules: Sequence[Hyperparameter] = part(convert=_each(number()))
    boundaries: Sequence[Steps] = part(convert=_each(number(integer=True, within=STEPS)))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.schedules:
            raise ValueError(f"`{type(self).__name__}`: schedules must not be empty.")
        if len(self.boundaries) != len(self.schedules) - 1:
            raise ValueError(
                f"`{type(self).__name__}`: boundaries must be one fewer than schedules, "
                f"got {len(self.boundaries)} for {len(self.schedules)} schedules."
            )
        known = [step for step in self.boundaries if isinstance(step, int)]
        if known != sorted(known):
            raise ValueError(f"`{type(self).__name__}`: boundaries must not decrease, got {self.boundaries}.")

    def value_at(self, count):
        begins = (0, *self.boundaries)
        lasts = [jnp.maximum(end - begin - 1, 0) for begin, end in zip(begins, self.boundaries, strict=False)]
        joined = None
        for schedule, begin, last in zip(self.schedules, begins, (*lasts, None), strict=True):
            (x,) = arrays_at(jnp.clip(count - begin, 0, last), schedule)
            joined = x if joined is None else jnp.where(count < begin, joined, x)
        return joined

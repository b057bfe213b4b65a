"""Exponential decay, smooth or in steps, with and without a warmup."""

import jax.numpy as jnp
from jax import Array

from gradtx.clock import Hyperparameter, arrays_at, as_float
from gradtx.moments import power
from gradtx.schedules.polynomial import linear_schedule
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps
from gradtx.value import flag, number, value


def periods(elapsed: Array, steps: Steps, staircase: bool) -> Array:
    """How many times `steps` have passed; only whole times if `staircase`, counted in integers."""
    return as_float(elapsed // steps) if staircase else as_float(elapsed) / as_float(steps)


@value
class exponential_decay(Schedule):
    """Returns a number times a power that grows with time.

        init_value decay_rate^(s / transition_steps),   s = max(t - transition_begin, 0)

    Args:
      init_value: the value until `transition_begin`.
      transition_steps: steps in which the value is multiplied by `decay_rate` once; at least 1.
      decay_rate: positive; above 1 the value grows. A Python number is not rounded before it is raised to the power, so
        0.999999 is right after a million steps; as an array, or in a schedule that is an argument of `jit`, it is a
        float32, and the result is that number's power.
      transition_begin: steps before it starts, not negative.
      staircase: round the exponent down, so that the value changes every `transition_steps` only.
      end_value: where it stops: from `transition_begin` on a lower bound if `decay_rate` is below 1, else an upper one.
        None: it does not.

    Differs from Optax: there, a `decay_rate` or `transition_steps` of 0 stays at `init_value` for ever, a negative
      `transition_begin` counts as 0, and end_value bounds the value before `transition_begin` too.
    """

    init_value: Hyperparameter = number()
    transition_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    decay_rate: Hyperparameter = number(within="(0, inf)")
    transition_begin: Steps = number(default=0, integer=True, within=STEPS)
    staircase: bool = flag(default=False)
    end_value: Hyperparameter | None = number(default=None, optional=True)

    def value_at(self, count):
        init, rate = arrays_at(count, self.init_value, self.decay_rate)
        factor = lambda times: power(self.decay_rate if isinstance(self.decay_rate, float) else rate, times)
        elapsed = jnp.maximum(count - self.transition_begin, 0)
        times = periods(elapsed, self.transition_steps, self.staircase)
        if self.end_value is None:
            return init * factor(times)
        (end,) = arrays_at(count, self.end_value)
        free = init * factor(times)
        stopped = (count >= self.transition_begin) & jnp.where(rate < 1, free < end, free > end)
        return jnp.where(stopped, end, init * factor(jnp.where(stopped, 0.0, times)))  # no gradient of an overflow


@value
class step_decay(Schedule):
    """Returns a number that is multiplied by a factor every so many steps.

        init_value decay_rate^floor(t / transition_steps)

    Args:
      init_value: the value at count 0.
      decay_rate: the factor; positive.
      transition_steps: steps between two changes, at least 1.

    The same as `exponential_decay` with `staircase=True`, in the order of the formula.
    """

    init_value: Hyperparameter = number()
    decay_rate: Hyperparameter = number(within="(0, inf)")
    transition_steps: Steps = number(integer=True, within=POSITIVE_STEPS)

    def value_at(self, count):
        return exponential_decay(self.init_value, self.transition_steps, self.decay_rate, staircase=True)(count)


@value
class warmup_exponential_decay_schedule(Schedule):
    """Returns a straight line up to the peak, and then exponential decay.

        init_value + (peak_value - init_value) t / warmup_steps             t < warmup_steps
        peak_value decay_rate^(s / transition_steps)                        after it,
                                                            s = max(t - warmup_steps - transition_begin, 0)

    Args:
      init_value: the value at count 0.
      peak_value: the value at `warmup_steps`, and for `transition_begin` steps more.
      warmup_steps: not negative; 0 is no warmup.
      transition_steps, decay_rate, staircase, end_value: as in `exponential_decay`.
      transition_begin: steps between the warmup and the decay, not negative.

    Differs from Optax: as `exponential_decay`.
    """

    init_value: Hyperparameter = number()
    peak_value: Hyperparameter = number()
    warmup_steps: Steps = number(integer=True, within=STEPS)
    transition_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    decay_rate: Hyperparameter = number(within="(0, inf)")
    transition_begin: Steps = number(default=0, integer=True, within=STEPS)
    staircase: bool = flag(default=False)
    end_value: Hyperparameter | None = number(default=None, optional=True)

    def value_at(self, count):
        rising = linear_schedule(self.init_value, self.peak_value, self.warmup_steps)
        begin = self.warmup_steps + self.transition_begin
        decay = exponential_decay(rising, self.transition_steps, self.decay_rate, begin, self.staircase, self.end_value)
        return decay(count)

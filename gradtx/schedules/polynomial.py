"""Polynomial transitions, the straight line first, and the warmup that is one."""

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import STEPS, Schedule, Steps
from gradtx.schedules.transition import between, remaining
from gradtx.value import number, value


@value
class linear_schedule(Schedule):
    """Returns a straight line from one number to another, constant before and after.

        init_value + (end_value - init_value) min(max(t - transition_begin, 0) / transition_steps, 1)

    Args:
      init_value: the value until `transition_begin`.
      end_value: the value from `transition_begin + transition_steps` on.
      transition_steps: length in steps, not negative; 0 jumps to `end_value` at `transition_begin`.
      transition_begin: steps before it starts, not negative.

    Differs from Optax: there, 0 `transition_steps` stay at `init_value` for ever, and a negative number is taken.
    """

    init_value: Hyperparameter = number()
    end_value: Hyperparameter = number()
    transition_steps: Steps = number(integer=True, within=STEPS)
    transition_begin: Steps = number(default=0, integer=True, within=STEPS)

    def value_at(self, count):
        init, end = arrays_at(count, self.init_value, self.end_value)
        return between(init, end, remaining(count, self.transition_steps, self.transition_begin))


@value
class polynomial_schedule(Schedule):
    """Returns a power of what is left of the way from one number to another, constant before and after.

        end_value + (init_value - end_value) (1 - f)^power,
        f = min(max(t - transition_begin, 0) / transition_steps, 1)

    The power cooldown of modded-nanogpt's records, min(eta, c (T - t)^1.2), is
    `polynomial_schedule(eta, 0.0, 1.2, D, transition_begin=T - D)`, whose c is eta / D^1.2.

    Args:
      init_value: the value until `transition_begin`.
      end_value: the value from `transition_begin + transition_steps` on.
      power: positive; 1 is a straight line, more falls fast first.
      transition_steps: length in steps, not negative; 0 jumps to `end_value` at `transition_begin`.
      transition_begin: steps before it starts, not negative.

    Differs from Optax: as `linear_schedule`; a power that is not positive is an error; and what is left of the way is
      never below 0 by a rounding error, which there, compiled, makes the end NaN for powers such as 1/2.
    """

    init_value: Hyperparameter = number()
    end_value: Hyperparameter = number()
    power: Hyperparameter = number(within="(0, inf)")
    transition_steps: Steps = number(integer=True, within=STEPS)
    transition_begin: Steps = number(default=0, integer=True, within=STEPS)

    def value_at(self, count):
        init, end, power = arrays_at(count, self.init_value, self.end_value, self.power)
        return between(init, end, remaining(count, self.transition_steps, self.transition_begin) ** power)


@value
class warmup_constant_schedule(Schedule):
    """Returns a straight line up to the peak, and then the peak.

        init_value + (peak_value - init_value) min(t / warmup_steps, 1)

    Args:
      init_value: the value at count 0.
      peak_value: the value from `warmup_steps` on.
      warmup_steps: not negative; 0 is no warmup.

    Differs from Optax: there, 0 `warmup_steps` stay at `init_value` for ever.
    """

    init_value: Hyperparameter = number()
    peak_value: Hyperparameter = number()
    warmup_steps: Steps = number(integer=True, within=STEPS)

    def value_at(self, count):
        return linear_schedule(self.init_value, self.peak_value, self.warmup_steps)(count)

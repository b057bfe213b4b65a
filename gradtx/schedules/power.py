"""A rate that is a power of the tokens seen: the Power scheduler (Shen et al., 2024)."""

import jax.numpy as jnp

from gradtx.clock import Hyperparameter, arrays_at, as_float
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps
from gradtx.schedules.transition import COOLDOWNS, between, remaining, share
from gradtx.schedules.warmup_stable_decay import check_room
from gradtx.value import number, static, value


@value
class power_schedule(Schedule):
    """Returns a power of the tokens seen times the batch size, after a warmup and before a cooldown.

        r(t) = min(max_value, batch_size a n^b),                     n = t batch_size sequence_length, the tokens seen
        r(warmup_steps) t / warmup_steps                             t < warmup_steps
        r(t)                                                         up to T - D, and for ever without a T
        r(T - D) (alpha + (1 - alpha) shape(x))                      after it,   x = min((t - (T - D)) / D, 1)
                                                      T = total_steps,   D = floor(decay_fraction T)

    Until its cooldown it does not depend on T. The defaults are the paper's, for rates that maximal update
    parametrization then divides by each matrix's width multiplier.

    Args:
      batch_size: sequences in a batch; positive. The rate is proportional to it.
      sequence_length: tokens in a sequence; positive.
      warmup_steps: not negative; 0 is no warmup, and starts at `max_value`.
      total_steps: T, the length of the whole in steps, at least 1. None: no cooldown.
      max_value: the largest value; positive.
      a: the amplitude; positive.
      b: the exponent; negative.
      decay_fraction: the part of T that is cooldown, in [0, 1]. The warmup must be over before it.
      alpha: the fraction that stays at the end of the cooldown.
      shape: of the cooldown, as in `warmup_stable_decay_schedule`.

    Source: Shen et al., Power scheduler: a batch size and token number agnostic learning rate scheduler, 2024,
      equations 7 and 8 (arXiv:2408.13359). It says of the cooldown that it is exponential and ends at 0; "exponential"
      is the authors' (IBM/dolomite-engine). Not in Optax.
    Differs from the authors' code: there, a cooldown of this schedule is another schedule, put after it.
    """

    batch_size: Hyperparameter = number(within="(0, inf)")
    sequence_length: Hyperparameter = number(within="(0, inf)")
    warmup_steps: Steps = number(integer=True, within=STEPS)
    total_steps: Steps | None = number(default=None, integer=True, optional=True, within=POSITIVE_STEPS)
    max_value: Hyperparameter = number(default=0.02, within="(0, inf)")
    a: Hyperparameter = number(default=4.0, within="(0, inf)")
    b: Hyperparameter = number(default=-0.51, within="(-inf, 0)")
    decay_fraction: Hyperparameter = number(default=0.1, within="[0, 1]")
    alpha: Hyperparameter = number(default=0.0)
    shape: str = static(default="exponential", one_of=tuple(COOLDOWNS))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_room(self)

    def value_at(self, count):
        if self.total_steps is None:
            return self._warm(count, count)
        (fraction,) = arrays_at(count, self.decay_fraction)
        decay = share(self.total_steps, fraction)
        begin = self.total_steps - decay
        rate = self._warm(count, jnp.minimum(count, begin))
        (alpha,) = arrays_at(count, self.alpha)
        return between(rate, alpha * rate, COOLDOWNS[self.shape](remaining(count, decay, begin)))

    def _warm(self, count, now):
        """r at `now`, after the warmup."""
        size, length, largest = arrays_at(count, self.batch_size, self.sequence_length, self.max_value)
        a, b = arrays_at(count, self.a, self.b)
        now = jnp.maximum(now, self.warmup_steps)
        tokens = as_float(jnp.maximum(now, 1)) * size * length
        rate = jnp.where(now > 0, jnp.minimum(largest, size * a * tokens**b), largest)  # 0^b is infinite
        return between(0 * rate, rate, remaining(count, self.warmup_steps))

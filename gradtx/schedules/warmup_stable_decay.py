"""Warmup, a constant rate for most of the time, and a short cooldown (Hu et al., 2024; Hägele et al., 2024)."""

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps
from gradtx.schedules.transition import COOLDOWNS, between, remaining, share
from gradtx.value import number, static, value


@value
class warmup_stable_decay_schedule(Schedule):
    """Returns a straight line up to the peak, the peak for most of the time, and a cooldown at the end.

        init_value + (peak_value - init_value) t / warmup_steps       t < warmup_steps
        peak_value                                                    up to T - D
        peak_value (alpha + (1 - alpha) shape(x))                     after it,   x = min((t - (T - D)) / D, 1)
                                                      T = total_steps,   D = floor(decay_fraction T)

    Until its cooldown it does not depend on T: a run goes on from a checkpoint of the constant part, with a longer T.

    Args:
      init_value: the value at count 0.
      peak_value: the value from `warmup_steps` on.
      warmup_steps: not negative; 0 is no warmup.
      total_steps: T, the length of the whole in steps, at least 1.
      decay_fraction: the part of T that is cooldown, in [0, 1]; 0.1 to 0.2 is usual. The warmup must be over before it.
      alpha: the fraction of `peak_value` that stays.
      shape: of the cooldown: "1-sqrt" is 1 - sqrt(x), falling fast first, the best in the second source; "linear"
        1 - x; "cosine" (1 + cos(pi x)) / 2; "square" 1 - x^2, falling fast last; "exponential", as fast at first as
        1.6 x, is (e^(1 - x) - 1) / (e - 1).

    Source: Hu et al., MiniCPM, 2024, section 4.2 (arXiv:2404.06395), where the cooldown is
      `exponential_decay(peak_value, half_life, 0.5)`, which ends above 0; Hägele et al., Scaling laws and
      compute-optimal training beyond fixed training durations, NeurIPS 2024, section 3 (arXiv:2405.18392), for the
      shapes, the cooldown to 0 and its length as a fraction. Not in Optax.
    """

    init_value: Hyperparameter = number()
    peak_value: Hyperparameter = number()
    warmup_steps: Steps = number(integer=True, within=STEPS)
    total_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    decay_fraction: Hyperparameter = number(default=0.2, within="[0, 1]")
    alpha: Hyperparameter = number(default=0.0)
    shape: str = static(default="1-sqrt", one_of=tuple(COOLDOWNS))

    def __post_init__(self) -> None:
        super().__post_init__()
        check_room(self)

    def value_at(self, count):
        init, peak, alpha = arrays_at(count, self.init_value, self.peak_value, self.alpha)
        (fraction,) = arrays_at(count, self.decay_fraction)
        decay = share(self.total_steps, fraction)
        rising = between(init, peak, remaining(count, self.warmup_steps))
        left = remaining(count, decay, begin=self.total_steps - decay)
        return between(rising, alpha * peak, COOLDOWNS[self.shape](left))


def check_room(schedule) -> None:
    """Holds a schedule to a warmup that is over when its cooldown begins.

    Raises:
      ValueError: it is not.
    """
    warmup, total, fraction = schedule.warmup_steps, schedule.total_steps, schedule.decay_fraction
    known = isinstance(warmup, int) and isinstance(total, int) and isinstance(fraction, float)
    if known and warmup > total - int(fraction * total * (1 + 1e-6)):
        raise ValueError(
            f"`{type(schedule).__name__}`: the warmup must end before the cooldown begins, got "
            f"warmup_steps={warmup} and decay_fraction={fraction} of total_steps={total}."
        )

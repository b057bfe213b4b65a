"""Cosine annealing, with and without a warmup."""

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps
from gradtx.schedules.transition import between, half_cosine, remaining
from gradtx.value import number, value


@value
class cosine_decay_schedule(Schedule):
    """Returns half a cosine wave from one number down to a fraction of it, and then that fraction.

        init_value (alpha + (1 - alpha) ((1 + cos(pi f)) / 2)^exponent),   f = min(t / decay_steps, 1)

    The form eta_min + (eta_max - eta_min) / 2 (1 + cos(pi t / T)) is `cosine_decay_schedule(eta_max, T,
    alpha=eta_min / eta_max)`, or `warmup_cosine_decay_schedule(eta_max, eta_max, 0, T, end_value=eta_min)`.

    Args:
      init_value: the value at count 0.
      decay_steps: length in steps, at least 1.
      alpha: the fraction of `init_value` that stays.
      exponent: positive; more falls sooner.

    Source: Loshchilov, Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, equation 5
      (arXiv:1608.03983), one period; alpha and exponent are Optax's.
    """

    init_value: Hyperparameter = number()
    decay_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    alpha: Hyperparameter = number(default=0.0)
    exponent: Hyperparameter = number(default=1.0, within="(0, inf)")

    def value_at(self, count):
        init, alpha, exponent = arrays_at(count, self.init_value, self.alpha, self.exponent)
        return between(init, alpha * init, half_cosine(remaining(count, self.decay_steps)) ** exponent)


@value
class warmup_cosine_decay_schedule(Schedule):
    """Returns a straight line up to the peak, then half a cosine wave down to the end, and then the end.

        init_value + (peak_value - init_value) t / warmup_steps                                 t < warmup_steps
        end_value + (peak_value - end_value) ((1 + cos(pi f)) / 2)^exponent                     after it,
                                   f = min((t - warmup_steps) / (decay_steps - warmup_steps), 1)

    Args:
      init_value: the value at count 0.
      peak_value: the value at `warmup_steps`.
      warmup_steps: not negative; 0 is no warmup.
      decay_steps: length in steps of the whole, the warmup included; more than `warmup_steps`.
      end_value: the value from `decay_steps` on.
      exponent: positive; more falls sooner.

    Source: Loshchilov, Hutter, SGDR, ICLR 2017, equation 5 (arXiv:1608.03983), after a linear warmup (Goyal et al.,
      Accurate, large minibatch SGD, 2017, arXiv:1706.02677).
    Differs from Optax: there, a `peak_value` of 0 makes the end 0 as well, whatever `end_value` says.
    """

    init_value: Hyperparameter = number()
    peak_value: Hyperparameter = number()
    warmup_steps: Steps = number(integer=True, within=STEPS)
    decay_steps: Steps = number(integer=True, within=STEPS)
    end_value: Hyperparameter = number(default=0.0)
    exponent: Hyperparameter = number(default=1.0, within="(0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        warmup, decay = self.warmup_steps, self.decay_steps
        if isinstance(warmup, int) and isinstance(decay, int) and decay <= warmup:
            raise ValueError(
                f"`{type(self).__name__}`: decay_steps must exceed warmup_steps (they include it), "
                f"got decay_steps={decay}, warmup_steps={warmup}."
            )

    def value_at(self, count):
        init, peak, end, exponent = arrays_at(count, self.init_value, self.peak_value, self.end_value, self.exponent)
        rising = between(init, peak, remaining(count, self.warmup_steps))
        left = remaining(count, self.decay_steps - self.warmup_steps, begin=self.warmup_steps)
        return between(rising, end, half_cosine(left) ** exponent)

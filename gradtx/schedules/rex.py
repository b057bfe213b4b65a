"""REX: the reflected exponential schedule (Chen, Wolfe, Kyrillidis, 2021)."""

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import POSITIVE_STEPS, Schedule, Steps
from gradtx.schedules.transition import between, remaining
from gradtx.value import number, value


@value
class rex_schedule(Schedule):
    """Returns a curve that stays high and falls late, from one number down to a fraction of it.

        init_value (alpha + (1 - alpha) (1 - z) / (1/2 + (1 - z) / 2)),   z = min(t / decay_steps, 1)

    After a warmup of w steps: `join_schedules([linear_schedule(0.0, peak, w), rex_schedule(peak, T - w)], [w])`.

    Args:
      init_value: the value at count 0.
      decay_steps: length in steps, at least 1.
      alpha: the fraction of `init_value` that stays.

    Source: Chen, Wolfe, Kyrillidis, REX: revisiting budgeted training with an improved schedule, MLSys 2022, section 3
      (arXiv:2107.04197); alpha is ours. Not in Optax.
    """

    init_value: Hyperparameter = number()
    decay_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    alpha: Hyperparameter = number(default=0.0)

    def value_at(self, count):
        init, alpha = arrays_at(count, self.init_value, self.alpha)
        left = remaining(count, self.decay_steps)
        return between(init, alpha * init, left / (0.5 + 0.5 * left))

"""One cycle: from a base up to the peak, and down to far below the base (Smith & Topin, 2018)."""

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.schedules.schedule import POSITIVE_STEPS, Schedule, Steps
from gradtx.schedules.transition import half_cosine, share, through
from gradtx.value import number, value


@value
class linear_onecycle_schedule(Schedule):
    """Returns a straight line up from the base to the peak, one back to the base, and one down to the end.

        base = peak_value / div_factor at 0, peak_value at floor(pct_start T), base at floor(pct_final T),
        base / final_div_factor at T = transition_steps and after it

    Args:
      transition_steps: T, length in steps, at least 1.
      peak_value: the highest value.
      pct_start: the fraction of T in which it rises, in [0, 1].
      pct_final: the fraction of T after which it is at the base again, in [pct_start, 1].
      div_factor: peak over base; positive.
      final_div_factor: base over end; positive.

    Source: Smith, Topin, Super-convergence: very fast training of neural networks using large learning rates, 2018
      (arXiv:1708.07120).
    Differs from Optax: the steps of the phases are rounded down after rounding errors, not before (there, 0.29 of 100
      is 28), and phases of no steps are left out (there, of two phases that end on one step one factor is lost:
      `transition_steps=1`, or `pct_start` equal to `pct_final`).
    """

    transition_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    peak_value: Hyperparameter = number()
    pct_start: Hyperparameter = number(default=0.3, within="[0, 1]")
    pct_final: Hyperparameter = number(default=0.85, within="[0, 1]")
    div_factor: Hyperparameter = number(default=25.0, within="(0, inf)")
    final_div_factor: Hyperparameter = number(default=1e4, within="(0, inf)")

    def __post_init__(self) -> None:
        super().__post_init__()
        start, final = self.pct_start, self.pct_final
        if isinstance(start, float) and isinstance(final, float) and final < start:
            raise ValueError(
                f"`{type(self).__name__}`: pct_final must be at least pct_start, "
                f"got pct_final={final}, pct_start={start}."
            )

    def value_at(self, count):
        peak, div, final_div = arrays_at(count, self.peak_value, self.div_factor, self.final_div_factor)
        start, final = arrays_at(count, self.pct_start, self.pct_final)
        steps, base = self.transition_steps, peak / div
        points = [(share(steps, start), peak), (share(steps, final), base), (steps, base / final_div)]
        return through(count, base, points)


@value
class cosine_onecycle_schedule(Schedule):
    """Returns half a cosine wave up from the base to the peak, and one down to the end.

        base = peak_value / div_factor at 0, peak_value at floor(pct_start T),
        base / final_div_factor at T = transition_steps and after it

    "Warm up from the base to the maximum, then cosine down to base / 100" is `final_div_factor=100.0`.

    Args:
      transition_steps: T, length in steps, at least 1.
      peak_value: the highest value.
      pct_start: the fraction of T in which it rises, in [0, 1].
      div_factor: peak over base; positive.
      final_div_factor: base over end; positive.

    Source: Smith, Topin, Super-convergence: very fast training of neural networks using large learning rates, 2018
      (arXiv:1708.07120), with cosines in place of lines, as in fastai and PyTorch.
    Differs from Optax: as `linear_onecycle_schedule`.
    """

    transition_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    peak_value: Hyperparameter = number()
    pct_start: Hyperparameter = number(default=0.3, within="[0, 1]")
    div_factor: Hyperparameter = number(default=25.0, within="(0, inf)")
    final_div_factor: Hyperparameter = number(default=1e4, within="(0, inf)")

    def value_at(self, count):
        peak, div, final_div = arrays_at(count, self.peak_value, self.div_factor, self.final_div_factor)
        (start,) = arrays_at(count, self.pct_start)
        base = peak / div
        points = [(share(self.transition_steps, start), peak), (self.transition_steps, base / final_div)]
        return through(count, base, points, half_cosine)

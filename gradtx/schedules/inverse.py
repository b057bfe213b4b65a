"""Decays that go like one over a power of time."""

import jax.numpy as jnp

from gradtx.clock import Hyperparameter, arrays_at, as_float
from gradtx.schedules.exponential import periods
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps
from gradtx.value import flag, number, value


@value
class inverse_sqrt_decay(Schedule):
    """Returns a number over the root of time.

        init_value / sqrt(1 + s / timescale),   s = max(t - transition_begin, 0)

    T5's schedule, 1 / sqrt(max(n, k)), is `inverse_sqrt_decay(k ** -0.5, timescale=k, transition_begin=k)`. The
    Transformer's, with a linear warmup of w steps to peak and peak sqrt(w / n) after it, is
    `join_schedules([linear_schedule(0.0, peak, w), inverse_sqrt_decay(peak, timescale=w)], [w])`, where its peak is
    (d_model w)^(-1/2).

    Args:
      init_value: the value until `transition_begin`.
      timescale: steps after which it has fallen by sqrt(2); positive.
      transition_begin: steps before it starts, not negative.

    Source: Vaswani et al., Attention is all you need, NeurIPS 2017, equation 3 (arXiv:1706.03762); Raffel et al.,
      Exploring the limits of transfer learning (T5), JMLR 2020, section 3.1.2 (arXiv:1910.10683). Not in Optax.
    """

    init_value: Hyperparameter = number()
    timescale: Hyperparameter = number(default=1.0, within="(0, inf)")
    transition_begin: Steps = number(default=0, integer=True, within=STEPS)

    def value_at(self, count):
        init, timescale = arrays_at(count, self.init_value, self.timescale)
        elapsed = jnp.maximum(count - self.transition_begin, 0)
        return init / jnp.sqrt(1 + as_float(elapsed) / timescale)


@value
class inverse_time_decay(Schedule):
    """Returns a number over time.

        init_value / (1 + decay_rate t / transition_steps)

    Args:
      init_value: the value at count 0.
      decay_rate: not negative.
      transition_steps: the unit of time in steps, at least 1.
      staircase: round t / transition_steps down, so that the value changes every `transition_steps` only.

    Source: Robbins, Monro, A stochastic approximation method, 1951, for steps that go like 1/t; Keras's
      InverseTimeDecay for the names. Not in Optax.
    """

    init_value: Hyperparameter = number()
    decay_rate: Hyperparameter = number(within="[0, inf)")
    transition_steps: Steps = number(default=1, integer=True, within=POSITIVE_STEPS)
    staircase: bool = flag(default=False)

    def value_at(self, count):
        init, rate = arrays_at(count, self.init_value, self.decay_rate)
        elapsed = jnp.maximum(count, 0)
        return init / (1 + rate * periods(elapsed, self.transition_steps, self.staircase))

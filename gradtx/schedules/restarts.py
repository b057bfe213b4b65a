"""SGDR: cosine annealing that starts again and again (Loshchilov & Hutter, 2017)."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from gradtx.clock import Hyperparameter, arrays_at, as_float
from gradtx.moments import power
from gradtx.schedules.cosine import warmup_cosine_decay_schedule
from gradtx.schedules.join import join_schedules
from gradtx.schedules.schedule import POSITIVE_STEPS, Schedule, Steps
from gradtx.schedules.transition import between, half_cosine, remaining
from gradtx.value import number, value, whole


@value
class cosine_restarts(Schedule):
    """Returns cosine waves down to a floor, each starting at its peak again, for ever.

        floor + (peak_i - floor) / 2 (1 + cos(pi t_i / T_i)),      t_i steps after the i-th start, i = 0, 1, ...
        T_i = first_decay_steps t_mul^i,   peak_i = init_value m_mul^i,   floor = alpha init_value

    Args:
      init_value: the first peak.
      first_decay_steps: T_0, the length of the first wave in steps, at least 1.
      t_mul: the paper's T_mult: each wave is this many times as long as the one before it. A whole number, at least 1;
        compiled in.
      m_mul: each peak is this many times as high as the one before it. Positive.
      alpha: the floor, as a fraction of `init_value`.

    Source: Loshchilov, Hutter, SGDR: stochastic gradient descent with warm restarts, ICLR 2017, equation 5
      (arXiv:1608.03983). The names are Keras's, where alpha lifts later peaks too when `m_mul` is not 1.
    """

    init_value: Hyperparameter = number()
    first_decay_steps: Steps = number(integer=True, within=POSITIVE_STEPS)
    t_mul: int = whole(default=2, within=POSITIVE_STEPS)
    m_mul: Hyperparameter = number(default=1.0, within="(0, inf)")
    alpha: Hyperparameter = number(default=0.0)

    def value_at(self, count):
        init, m_mul, alpha = arrays_at(count, self.init_value, self.m_mul, self.alpha)
        count, first = jnp.maximum(count, 0), self.first_decay_steps
        periods = count // first  # all in integers: a wave that starts one step late would be a step at the floor
        if self.t_mul == 1:
            wave = before = periods
        else:
            starts = jnp.asarray(_starts(self.t_mul), periods.dtype)
            wave = jnp.searchsorted(starts, periods, side="right") - 1
            before = starts[wave]
        length = (as_float(before) * (self.t_mul - 1) + 1) * as_float(first)  # t_mul^wave first; beyond int32, too
        peak = init * power(self.m_mul if isinstance(self.m_mul, float) else m_mul, as_float(wave))
        return between(peak, alpha * init, half_cosine(remaining(count, length, begin=before * first)))


def _starts(t_mul: int) -> np.ndarray:
    """Where each wave starts, in lengths of the first one: 0, 1, 1 + t_mul, 1 + t_mul + t_mul^2, ... within int32."""
    starts = [0]
    while (after := starts[-1] * t_mul + 1) < 2**31:
        starts.append(after)
    return np.array(starts, np.int32)


def sgdr_schedule(cosine_kwargs: Iterable[Mapping[str, Any]]) -> join_schedules:
    """Returns one `warmup_cosine_decay_schedule` after the other; the last one stays at its end.

    Args:
      cosine_kwargs: the arguments of each, as dicts; each `decay_steps` is the length of its wave.

    Source: as `cosine_restarts`, which is the periodic form; with warmups and any lengths and peaks, as in Optax.
    """
    kwargs = list(cosine_kwargs)
    if not kwargs or not all(isinstance(each, Mapping) for each in kwargs):
        raise ValueError(
            "`sgdr_schedule`: cosine_kwargs must be one or more dicts with the arguments of "
            f"`warmup_cosine_decay_schedule`, got {kwargs!r}."
        )
    waves = [warmup_cosine_decay_schedule(**each) for each in kwargs]
    boundaries, end = [], 0
    for wave in waves[:-1]:
        end = end + wave.decay_steps
        boundaries.append(end)
    return join_schedules(waves, boundaries)

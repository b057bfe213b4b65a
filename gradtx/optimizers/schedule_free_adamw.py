"""Schedule-free AdamW (Defazio et al., 2024): AdamW whose momentum is an average of its iterates."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter, arrays_at
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.moments import ema_mass, length
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.optimizers.schedule_free import one_ahead, schedule_free, schedule_free_with_mean, warmed_up
from gradtx.schedules.schedule import Schedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, value


@value
class corrected_rate(Schedule):
    """A rate that makes up for the bias of a second moment: learning_rate sqrt(1 - b2^t), t the count, from 1.

    Args:
      learning_rate: not negative.
      b2: the moment's decay, in [0, 1).
    """

    learning_rate: Hyperparameter = number(within="[0, inf)")
    b2: Hyperparameter = number(within="[0, 1)")

    def value_at(self, count):
        rate, b2 = arrays_at(count, self.learning_rate, self.b2)
        return rate * length(ema_mass(b2, jnp.maximum(count, 1)))


def schedule_free_adamw(
    learning_rate: Hyperparameter = 0.0025,
    warmup_steps: int | None = None,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    weight_lr_power: Hyperparameter = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Any = None,
    r: Hyperparameter = 0.0,
    decay_at_z: bool = False,
    store_x: bool = False,
    one_rate: bool = False,
    inner_momentum: Hyperparameter | None = None,
    correct_rate: bool = False,
) -> GradientTransformation:
    """`schedule_free` of AdamW without its first moment: z <- z - learning_rate (g / (sqrt(v) + eps) + weight_decay y).

    Other arguments: `schedule_free`, as b1; those of v: `scale_by_rms`.

    State: 8 bytes per float32 parameter, 4 more with store_x and 4 with inner_momentum, and 20. Reads: params.

    Args:
      learning_rate: in units of the parameters; 1 to 10 times that of AdamW with a schedule.
      warmup_steps: during which the rate rises from 0 in a straight line; None or 0 for none.
      weight_decay: fraction of y removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      decay_at_z: it is z that decays by a fraction of itself, not of y.
      store_x: keep x, the mean: b1 may be 0, and parameters in bfloat16. See `schedule_free_with_mean`.
      one_rate: steps have the rate that the weights have, read a step ahead, so that a warmup's first step is its
        1 / warmup_steps, as in the authors' code; False: 0, as in Optax.
      inner_momentum: decay of a running mean of g in the place of g, in [0, 1), as b1 of `scale_by_adam`; None: none.
      correct_rate: leave v's bias, and multiply the rate by sqrt(1 - b2^t), so that the first iterates weigh less. That
        is the paper's pseudocode, and its code's `AdamWScheduleFreePaper`; `AdamWScheduleFree` and Optax correct v.

    Raises:
      ValueError: both inner_momentum and correct_rate.
    """
    if correct_rate and inner_momentum is not None:
        raise ValueError("`schedule_free_adamw`: inner_momentum corrects v, and correct_rate does not: choose one.")
    rate = warmed_up(learning_rate, warmup_steps)
    rate = corrected_rate(rate, b2) if correct_rate else rate
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=not correct_rate)
        if inner_momentum is None
        else scale_by_adam(inner_momentum, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(one_ahead(rate) if one_rate or correct_rate else rate),
    )
    averaged = schedule_free_with_mean if store_x else schedule_free
    return averaged(base, rate, b1, weight_lr_power, state_dtype, r=r, at_z=decay_at_z)

"""Schedule-free RAdam (Defazio et al., 2024; Liu et al., 2020): no schedule, and no warmup to choose either."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, arrays_at, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.optimizers.radam import rectification
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.optimizers.schedule_free import one_ahead, schedule_free, schedule_free_with_mean
from gradtx.schedules.schedule import Schedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, value

THRESHOLD = 4.0  # the least rho; RAdam's paper has it so


@value
class rectified_rate(Schedule):
    """A rate with RAdam's factor: learning_rate r, t the count, from 1; see `scale_by_radam`.

    Args:
      learning_rate: not negative.
      b2: the second moment's decay, in [0, 1).
      before: what is in the place of r while rho is below 4. Not negative.
    """

    learning_rate: Hyperparameter = number(within="[0, inf)")
    b2: Hyperparameter = number(within="[0, 1)")
    before: Hyperparameter = number(default=0.0, within="[0, inf)")

    def value_at(self, count):
        rate, b2, before = arrays_at(count, self.learning_rate, self.b2, self.before)
        trusted, r = rectification(b2, jnp.maximum(count, 1), THRESHOLD)
        return rate * jnp.where(trusted, r, before)


@transformation
class scale_by_trusted_rms(scale_by_rms):
    """`scale_by_rms` where it is of enough gradients for `scale_by_radam`, rho at least 4; before, the gradient itself.

    Args:
      decay, eps, initial_scale, eps_in_sqrt, bias_correction: as in `scale_by_rms`; bias_correction must be True.

    State: 4 bytes per float32 parameter and 4. Reads: gradients only.
    Raises:
      ValueError: without bias_correction, with which it counts.
    Source: Liu et al., On the variance of the adaptive learning rate and beyond, ICLR 2020 (arXiv:1908.03265).
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.bias_correction:
            raise ValueError("`scale_by_trusted_rms`: it counts with bias_correction=True alone.")

    def update(self, updates, state, params=None, **extra):
        (decay,) = at(state.count, self.decay)
        trusted, _ = rectification(decay, tick(state.count), THRESHOLD)
        scaled, new_state = super().update(updates, state, params)
        return leafwise.map(lambda g, u: jnp.where(trusted, u, g), updates, scaled), new_state


def schedule_free_radam(
    learning_rate: Hyperparameter = 0.0025,
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
    silent_sgd_phase: bool = True,
) -> GradientTransformation:
    """`schedule_free_adamw` whose rate rises by itself, with RAdam's factor, which the weights of the mean know.

    Other arguments: `schedule_free`, as b1; those of v: `scale_by_rms`.

    Args:
      learning_rate: in units of the parameters; 1 to 10 times that of AdamW with a schedule. A
        schedule is read at t + 1.
      weight_decay: fraction of y removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      decay_at_z: it is z that decays by a fraction of itself, not of y.
      store_x: keep x, the mean: b1 may be 0, and parameters in bfloat16. See `schedule_free_with_mean`.
      silent_sgd_phase: nothing moves while rho is below 4, for the first four updates with b2 = 0.999. False: there it
        is gradient descent with that rate, per unit of gradient.

    State: 8 bytes per float32 parameter, 12 with store_x, and 20. Reads: params.
    Source: Defazio et al., The road less scheduled, NeurIPS 2024 (arXiv:2405.15682); its code's `RAdamScheduleFree`.
    """
    rate = rectified_rate(learning_rate, b2, 0.0 if silent_sgd_phase else 1.0)
    scale_by = scale_by_rms if silent_sgd_phase else scale_by_trusted_rms
    base = chain(
        scale_by(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(one_ahead(rate)),
    )
    averaged = schedule_free_with_mean if store_x else schedule_free
    return averaged(base, rate, b1, weight_lr_power, state_dtype, r=r, at_z=decay_at_z)

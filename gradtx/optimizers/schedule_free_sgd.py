"""Schedule-free SGD (Defazio et al., 2024): gradient descent whose iterates are averaged as it goes."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.schedule_free import one_ahead, schedule_free, schedule_free_with_mean, warmed_up
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.decay import add_decayed_weights


def schedule_free_sgd(
    learning_rate: Hyperparameter = 1.0,
    warmup_steps: int | None = None,
    b1: Hyperparameter = 0.9,
    weight_decay: Hyperparameter | None = None,
    weight_lr_power: Hyperparameter = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Any = None,
    r: Hyperparameter = 0.0,
    decay_at_z: bool = False,
    store_x: bool = False,
    one_rate: bool = False,
) -> GradientTransformation:
    """`schedule_free` of gradient descent: z <- z - learning_rate (g + weight_decay y). Others: `schedule_free`.

    Args:
      learning_rate: in units of the parameters per unit of gradient; larger than with a schedule.
      warmup_steps: during which the rate rises from 0 in a straight line; None or 0 for none.
      weight_decay: not negative; None for none.
      mask: which leaves decay; see `add_decayed_weights`.
      decay_at_z: it is z that decays by a fraction of itself, not of y.
      store_x: keep x, the mean: b1 may be 0, and parameters in bfloat16. See `schedule_free_with_mean`.
      one_rate: steps have the rate that the weights have, read a step ahead, so that a warmup's first step is its
        1 / warmup_steps, as in the authors' code; False: 0, as in Optax.
    """
    rate = warmed_up(learning_rate, warmup_steps)
    links = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask)]
    base = chain(*links, sgd(one_ahead(rate) if one_rate else rate))
    averaged = schedule_free_with_mean if store_x else schedule_free
    return averaged(base, rate, b1, weight_lr_power, state_dtype, r=r, at_z=decay_at_z)

"""Stable-SPAM (Huang et al., 2025): Adam of gradients whose largest entries and norms are held to their history."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.collectives import Axis
from gradtx.combine.chain import chain
from gradtx.combine.reset import reset_every
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.amsgrad import scale_by_amsgrad
from gradtx.schedules.schedule import Steps
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.spikes import clip_by_running_max, normalize_by_running_norm


def stable_spam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    gamma1: Hyperparameter = 0.7,
    gamma2: Hyperparameter = 0.9,
    gamma3: Hyperparameter = 0.999,
    period: Steps | None = 1000,
    warmup_steps: Steps = 0,
    amsgrad: bool = False,
    axis: Axis = None,
) -> GradientTransformation:
    """AdamW after two bounds that adapt, leaf by leaf, and with moments that start over. For training in few bits.

    It is the chain

        clip_by_running_max(gamma3)                         AdaClip: the largest entries
        normalize_by_running_norm(gamma1, gamma2, eps)      AdaGN: the norms
        reset_every(scale_by_adam(b1, b2, eps), period)     MoRet: with its counts
        add_decayed_weights(weight_decay, mask)
        scale_by_learning_rate(learning_rate)

    and each link stands before any other method as well.

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      b1, b2, eps, mu_dtype: as in `scale_by_adam`; eps also in units of a leaf's norm.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
      gamma1, gamma2: decays of the norm and of its square, in [0, 1). With a schedule that falls they let go of b1 and
        gamma1 together, as the authors do with `total_T`.
      gamma3: decay of the largest entry, in [0, 1).
      period: updates from one reset of the moments to the next; None for none.
      warmup_steps: see `reset_every`.
      amsgrad: divide by the largest second moment so far, its bias corrected after the maximum.
      axis: as in `clip_by_global_norm`.

    State: 8 bytes per float32 parameter, 12 with amsgrad, and 12 per leaf. Reads: params.
    Source: Huang et al., Stable-SPAM: how to train in 4-bit more stably than 16-bit Adam, 2025 (arXiv:2502.17055).
      Its authors' code resets a step late: at the update `period` it takes the old moments with the bias corrections
      of a first update, and goes on from empty ones with those of a second; the norms' corrections start over, their
      means do not. Here a reset is a start, of the moments alone.
    """
    if amsgrad:
        direction = scale_by_amsgrad(b1, b2, eps, mu_dtype=mu_dtype, bias_correction_nu="after")
    else:
        direction = scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
    return chain(
        clip_by_running_max(gamma3, axis=axis),
        normalize_by_running_norm(gamma1, gamma2, eps, axis=axis),
        direction if period is None else reset_every(direction, period, warmup_steps, restart_time=True),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

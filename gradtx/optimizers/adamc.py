"""AdamC (Defazio, 2025): AdamW whose decay falls with the square of the rate, so that gradients do not grow."""

from typing import Any

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.core import GradientTransformation
from gradtx.optimizers.adam import adamw


def adamc(
    learning_rate: Hyperparameter,
    peak_learning_rate: Hyperparameter | None = None,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW with a decay that keeps gradients from growing at the end of a schedule. Other arguments: `scale_by_adam`.

        p <- p (1 - learning_rate^2 / peak_learning_rate weight_decay) - learning_rate m / (sqrt(v + eps_root) + eps)

    A layer whose output is normalized does not change when its weights are scaled; its gradient falls with their norm,
    and steps and decay bring the ratio of the two to sqrt(2 weight_decay / learning_rate). As the rate falls, gradients
    grow, unless the decay falls with it. A layer that no normalization follows, such as the output, decays as before:

        chain(
            scale_by_adam(),
            add_decayed_weights(0.1, mask="lm_head"),
            scale_by_learning_rate(schedule),
            decay_weights(0.1, schedule, mask=normalized, of="old", coupling="squared", peak_learning_rate=3e-4),
        )

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      peak_learning_rate: the schedule's largest value, positive. None: the rate is a number, and this is `adamw`.
      weight_decay: fraction of p removed per update at the largest rate, before that multiplies it. Not negative.
      mask: which leaves decay: those that a normalization follows; None, all. See `add_decayed_weights`.

    State: 8 bytes per float32 parameter. Reads: params.
    Raises:
      ValueError: a schedule, and no largest rate.
    Source: Defazio, Why gradients rapidly increase near the end of training, 2025 (arXiv:2506.02285).
    """
    if peak_learning_rate is None and callable(learning_rate):
        raise ValueError(
            "`adamc`: learning_rate is a schedule, and its largest value is not known: pass peak_learning_rate, "
            "such as the peak_value of `warmup_cosine_decay_schedule`."
        )
    return adamw(
        learning_rate, b1, b2, eps, eps_root, mu_dtype, weight_decay, mask,
        nesterov=nesterov, bias_correction=bias_correction,
        decay_coupling="squared", peak_learning_rate=peak_learning_rate,
    )  # fmt: skip

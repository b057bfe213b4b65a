"""SPAM (Huang et al., 2025): Adam whose gradients' spikes are clipped, and which forgets from time to time."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, arrays_at, at
from gradtx.combine.chain import chain
from gradtx.combine.reset import reset_every
from gradtx.core import GradientTransformation, transformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Schedule, Steps, following
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.spikes import without_spikes
from gradtx.value import number, value


@transformation
class scale_by_spam(scale_by_adam):
    """`scale_by_adam` of gradients whose entries are clipped by their own second moment.

        g <- g min(1, sqrt(threshold nu) / |g|)      nu before this update, its bias not corrected; g where nu is 0

    The same as `clip_spikes` before it with b2 for decay, without its slot.

    Args:
      threshold: the largest |g|^2 / nu; positive, infinity clips nothing. Other arguments: `scale_by_adam`.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: as `spam`.
    """

    threshold: Hyperparameter = number(default=5000.0, within="(0, inf]", kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (threshold,) = at(state.count, self.threshold)
        updates = leafwise.map(lambda g, nu: without_spikes(g, nu, threshold), updates, state.nu)
        return super().update(updates, state, params)


@value
class spike_threshold(Schedule):
    """A threshold, and infinity where the second moment has seen few gradients, after the start and after each reset.

        threshold where t mod period >= clip_after, else infinity,      t = count + 1, the number of the update

    Args:
      threshold: positive, or infinity.
      clip_after: a number of updates, not negative.
      period: updates from one reset to the next, at least 1.

    Source: as `spam`.
    """

    threshold: Hyperparameter = number(within="(0, inf]")
    clip_after: Steps = number(integer=True, within=STEPS)
    period: Steps = number(integer=True, within=POSITIVE_STEPS)

    def value_at(self, count):
        (threshold,) = arrays_at(count, self.threshold)
        return jnp.where(following(count) % self.period >= self.clip_after, threshold, jnp.inf)


def spam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    threshold: Hyperparameter = 5000.0,
    clip_after: Steps = 20,
    period: Steps = 500,
    warmup_steps: Steps = 150,
    bias_correction: bool = True,
) -> GradientTransformation:
    """AdamW that clips spikes of single entries, and starts from empty moments again and again. See `scale_by_spam`.

        mu, nu = 0          at every `period`-th update, before all else
        p <- p - learning_rate (w m / (sqrt(v) + eps) + weight_decay p)       w < 1 after a reset: see `reset_every`

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
      clip_after: nothing is clipped at update t where t mod `period` is less: there nu is of few gradients.
      period: updates from one reset to the next, at least 1.
      warmup_steps: updates after a reset whose steps are shorter; 0 for none.

    State: 8 bytes per float32 parameter, and 8. Reads: params.
    Source: Huang et al., SPAM: Spike-aware Adam with momentum reset for stable LLM training, ICLR 2025
      (arXiv:2501.06842), with the warmup and the wait before clipping of its authors' code. As there, bias corrections
      are those of t, across resets. The code has eps beside the uncorrected root, eps / sqrt(1 - b2^t) here, and decays
      what the step leads to. An entry that never had a gradient is not clipped: there, it would never move. Sparse
      moments are left out.
    """
    armed = spike_threshold(threshold, clip_after, period)
    direction = scale_by_spam(b1, b2, eps, mu_dtype=mu_dtype, threshold=armed, bias_correction=bias_correction)
    return chain(
        reset_every(direction, period, warmup_steps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

"""LARS (You, Gitman, Ginsburg, 2017): momentum with every layer's step in proportion to its parameters."""

from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import again, root, squares_summed
from gradtx.transforms.decay import decayed
from gradtx.transforms.momentum import trace
from gradtx.transforms.normalize import trust_ratio
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, static


@transformation
class scale_by_lars(GradientTransformation):
    """Adds the decayed parameters to the updates and scales each leaf to a fraction of its parameter's norm.

        r = g + weight_decay p
        u = r trust_coefficient |p| / (|r| + eps)           u = r where |p| or |r| is 0

    The same as `add_decayed_weights` and `scale_by_trust_ratio`, in one pass over memory less: r is computed again for
    its norm instead of being kept.

    Args:
      weight_decay: L2 regularization, before the ratio. Not negative.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.
      trust_coefficient: each leaf's step as a fraction of the leaf's norm. Positive.
      eps: added to the norm of r. Not negative.
      trust_ratio_mask: which leaves are scaled.
      of_sum: False divides by |g| + weight_decay |p| + eps, as the paper does, instead of |g + weight_decay p| + eps.
      larc_rate: the learning rate that follows, positive. With it the ratio is at most 1 of it, u = r min(ratio /
        larc_rate, 1): no leaf moves faster than by gradient descent with that rate (LARC). None: no bound.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params.
    Source: You, Gitman, Ginsburg, Large batch training of convolutional networks, 2017, Algorithm 1 (arXiv:1708.03888);
      `of_sum` is Optax's. LARC is NVIDIA's (apex), and timm's `trust_clip`.
    """

    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    weight_decay_mask: Any = static(default=True, convert=as_mask)
    trust_coefficient: Hyperparameter = number(default=0.001, within="(0, inf)")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    trust_ratio_mask: Any = static(default=True, convert=as_mask)
    of_sum: bool = flag(default=True, kw_only=True)
    larc_rate: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, coefficient, eps = at(state.count, self.weight_decay, self.trust_coefficient, self.eps)
        (rate,) = (None,) if self.larc_rate is None else at(state.count, self.larc_rate)

        def leaf(g, p, decays, is_scaled):
            def direction(g, p):
                return decayed(g, p, decay) if decays else g

            if not is_scaled:
                return direction(g, p)
            if self.of_sum:
                ratio = yield from trust_ratio(direction(*again(g, p)), p, coefficient, eps=eps, axis=self.axis)
            else:
                squares = yield from squares_summed((g, p), True, self.axis)
                g_norm, p_norm = map(root, squares)
                whole = g_norm + (decay if decays else 0) * p_norm + eps
                ratio = jnp.where(jnp.minimum(*squares) == 0, 1, coefficient * p_norm / whole)
            return direction(g, p) * (ratio if rate is None else jnp.minimum(ratio / rate, 1))

        decays, is_scaled = (chosen(m, params, self.name) for m in (self.weight_decay_mask, self.trust_ratio_mask))
        return leafwise.map(leaf, updates, params, decays, is_scaled), ClockState(tick(state.count))


def lars(
    learning_rate: Hyperparameter,
    weight_decay: Hyperparameter = 0.0,
    weight_decay_mask: Any = True,
    trust_coefficient: Hyperparameter = 0.001,
    eps: Hyperparameter = 0.0,
    trust_ratio_mask: Any = True,
    momentum: Hyperparameter = 0.9,
    nesterov: bool = False,
    *,
    of_sum: bool = True,
    larc: bool = False,
    axis: Axis = None,
) -> GradientTransformation:
    """LARS: SGD with momentum whose gradient is scaled leaf by leaf to a fraction of the parameter's norm.

        r = g + weight_decay p
        v = momentum v - learning_rate r trust_coefficient |p| / (|r| + eps);   p <- p + v

    Args:
      learning_rate: multiplies each leaf's step before the momentum.
      weight_decay, weight_decay_mask, trust_coefficient, eps, trust_ratio_mask, of_sum, axis: as in `scale_by_lars`.
        Usually neither mask holds biases and norms.
      momentum: in [0, 1).
      nesterov: look one step ahead.
      larc: the learning rate is a bound on each leaf's own, learning_rate ratio, instead of a factor (LARC).

    State: 4 bytes per float32 parameter. Reads: params.
    """
    options = {"of_sum": of_sum, "larc_rate": learning_rate if larc else None, "axis": axis}
    return chain(
        scale_by_lars(weight_decay, weight_decay_mask, trust_coefficient, eps, trust_ratio_mask, **options),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )

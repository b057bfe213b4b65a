"""LARS (You, Gitman, Ginsburg, 2017): momentum with every layer's step in proportion to its parameters."""

from typing import Any

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import again
from gradtx.transforms.decay import decayed
from gradtx.transforms.momentum import trace
from gradtx.transforms.normalize import trust_ratio
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, static


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
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params.
    Source: You, Gitman, Ginsburg, Large batch training of convolutional networks, 2017, Algorithm 1 (arXiv:1708.03888).
      The ratio's denominator is |g + weight_decay p|, as in Optax, where the paper has |g| + weight_decay |p|.
    """

    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    weight_decay_mask: Any = static(default=True, convert=as_mask)
    trust_coefficient: Hyperparameter = number(default=0.001, within="(0, inf)")
    eps: Hyperparameter = number(default=0.0, within="[0, inf)")
    trust_ratio_mask: Any = static(default=True, convert=as_mask)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, coefficient, eps = at(state.count, self.weight_decay, self.trust_coefficient, self.eps)

        def leaf(g, p, decays, is_scaled):
            def direction(g, p):
                return decayed(g, p, decay) if decays else g

            if not is_scaled:
                return direction(g, p)
            ratio = yield from trust_ratio(direction(*again(g, p)), p, coefficient, eps=eps, axis=self.axis)
            return direction(g, p) * ratio

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
    axis: Axis = None,
) -> GradientTransformation:
    """LARS: SGD with momentum whose gradient is scaled leaf by leaf to a fraction of the parameter's norm.

        r = g + weight_decay p
        v = momentum v - learning_rate r trust_coefficient |p| / (|r| + eps);   p <- p + v

    Args:
      learning_rate: multiplies each leaf's step before the momentum.
      weight_decay, weight_decay_mask, trust_coefficient, eps, trust_ratio_mask, axis: as in `scale_by_lars`. Usually
        neither mask holds biases and norms.
      momentum: in [0, 1).
      nesterov: look one step ahead.

    State: 4 bytes per float32 parameter. Reads: params.
    """
    return chain(
        scale_by_lars(weight_decay, weight_decay_mask, trust_coefficient, eps, trust_ratio_mask, axis=axis),
        scale_by_learning_rate(learning_rate),
        trace(momentum, nesterov),
    )

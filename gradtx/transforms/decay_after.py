"""Weight decay of where a step has led."""

from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.value import number, static


@transformation
class decay_after_step(GradientTransformation):
    """Shrinks the parameters after the step, not before it. It goes after the learning rate.

        u' = u - learning_rate weight_decay (p + u),         so that p + u' = (1 - learning_rate weight_decay) (p + u)

    `add_decayed_weights` before the learning rate takes the same fraction of p alone; the difference is of second order
    in the learning rate.

    Args:
      learning_rate: that of the step.
      weight_decay: fraction removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
      start: the number of the first update that decays, from 1.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: the authors' code of SOAP, which decays so.
    """

    learning_rate: Hyperparameter = number(within="[0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    start: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        rate, decay = at(state.count, self.learning_rate, self.weight_decay)
        count = tick(state.count)
        fraction = jnp.where(count >= self.start, rate * decay, 0.0)

        def leaf(u, p, decays):
            return u - fraction * (p + u) if decays else u

        return leafwise.map(leaf, updates, params, chosen(self.mask, params, self.name)), ClockState(count)

"""Decay of the weight that a step leads to, after whatever decided it."""

from typing import Any

import jax.numpy as jnp

from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.transforms.weight import inner, steps_to
from gradtx.value import flag, number, static


@transformation
class decay_weights(GradientTransformation):
    """Makes the weights smaller to which the steps lead. It goes after the learning rate.

        W' = W + u
        W'' = W' - learning_rate weight_decay W'            W in place of the last W' with `of` "old"
        u' = W'' - W
        if cautious: W'' = W' in the entries where u W >= 0

    After `keep_norm` or `radial_brake` it decays what these decided. `add_decayed_weights` stands before the learning
    rate, which multiplies it; here that is an argument, and where the rate is a schedule, the same schedule.

    Args:
      weight_decay: not negative; per update, times `learning_rate` the fraction that is removed.
      learning_rate: not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      cautious: only entries decay whose step makes them smaller. The step is what comes in: of a projection, the whole.
      of: what decays, the "new" weight or the "old" one, as it was before the step.
      start: the number of the first update that decays, from 1.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: the optimization track of modded-nanogpt, 2026, record 46; cautious: Chen et al., Cautious weight decay,
      2025 (arXiv:2510.12402). Of complex entries, those decay in which Re(u conj(W)) < 0.
    """

    weight_decay: Hyperparameter = number(within="[0, inf)")
    learning_rate: Hyperparameter = number(default=1.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    cautious: bool = flag(default=False, kw_only=True)
    of: str = static(default="new", one_of=("new", "old"), kw_only=True)
    start: int = number(default=1, within="[1, inf)", integer=True, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, rate = at(state.count, self.weight_decay, self.learning_rate)
        count = tick(state.count)
        fraction = jnp.where(count >= self.start, decay * rate, 0.0)

        def formula(w, step, decays):
            moved = w + step
            if not decays:
                return moved
            lost = fraction * (moved if self.of == "new" else w)
            return moved - (jnp.where(inner(w, step) < 0, lost, 0) if self.cautious else lost)

        decays = chosen(self.mask, params, self.name)
        return steps_to(formula, updates, params, decays), ClockState(count)

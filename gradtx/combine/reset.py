"""Forgetting, from time to time, what a transformation remembers."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick, time
from gradtx.core import GradientTransformation, State, as_transformation, require_params, transformation
from gradtx.schedules.schedule import POSITIVE_STEPS, STEPS, Steps
from gradtx.value import flag, number, part, state


@state
class ResetEveryState(NamedTuple):
    """State of `reset_every`."""

    count: Array  # int32 scalar: updates made so far
    inner_state: State


@transformation
class reset_every(GradientTransformation):
    """Lets a transformation forget at every k-th update, so that what a spike left in its averages does not stay.

        state = init(p)    before the updates k, 2 k, ...
        u = w u',          u' what `inner` returns
        w = 1 - (1 - warmup_from) (1 + cos(pi n / (warmup_steps + 1))) / 2

    n counts the updates since the last reset, 0 at the one that follows it at once; w is 1 before the first reset, and
    from n = warmup_steps on. Every array of the state is reset but the counts, its integer scalars: schedules go on,
    and bias corrections stay those of t. Averages of few updates are then too short, a second moment's most, so steps
    of an adaptive method are too long: that is what the warmup is for.

        reset_every(scale_by_adam(), 500, warmup_steps=150)        # between clips and the learning rate
        reset_every(adamw(schedule), 500, warmup_steps=150)        # a whole optimizer

    Args:
      inner: a transformation, or a foreign `(init, update)` pair.
      period: k, a number of updates, at least 1.
      warmup_steps: updates after a reset whose steps are shorter; 0 for none.
      warmup_from: w at the reset itself, in [0, 1].
      restart_time: counts start over, too: bias corrections are exact, and what `inner` has of schedules begins anew.

    State: 4 bytes and the inner one's. Reads: params; what the inner one reads. What in it keeps no time of its own
      lives by the count of updates.
    Source: Huang et al., SPAM: Spike-aware Adam with momentum reset for stable LLM training, ICLR 2025
      (arXiv:2501.06842); w is its authors' code's. All leaves are reset at one time, those without a gradient, too.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    period: Steps = number(integer=True, within=POSITIVE_STEPS)
    warmup_steps: Steps = number(default=0, integer=True, within=STEPS)
    warmup_from: Hyperparameter = number(default=0.01, within="[0, 1]")
    restart_time: bool = flag(default=False, kw_only=True)

    def init(self, params):
        return ResetEveryState(start(), self.inner.bare_init(params))

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        t = tick(state.count)
        fresh, since = self.inner.bare_init(params), t % self.period

        def reset(new: Any, old: Any) -> Any:
            is_count = jnp.issubdtype(old.dtype, jnp.integer) and old.ndim == 0
            if not leafwise.is_number(old) or (is_count and not self.restart_time):
                return old
            return jnp.where(since == 0, jnp.asarray(new).astype(old.dtype), old)

        with time(state.count):
            known = jax.tree.map(reset, fresh, state.inner_state)
            updates, inner_state = self.inner.bare_update(updates, known, params, **extra)
        if not (isinstance(self.warmup_steps, int) and self.warmup_steps == 0):
            (least,) = at(state.count, self.warmup_from)
            angle = jnp.pi * as_float(since) / (as_float(self.warmup_steps) + 1)
            warm = 1 - (1 - least) * (1 + jnp.cos(angle)) / 2
            factor = jnp.where((t >= self.period) & (since < self.warmup_steps), warm, 1)
            updates = leafwise.map(lambda u: u * factor, updates)
        return updates, ResetEveryState(t, inner_state)

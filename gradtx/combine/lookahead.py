"""Lookahead (Zhang et al., 2019): k steps forward, one step back."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.value import flag, number, part, state, whole


@state
class LookaheadParams(NamedTuple):
    """Two copies of the parameters."""

    fast: Params  # those that are trained, and at which gradients are taken
    slow: Params  # those that follow, and with which the model is evaluated

    @classmethod
    def init_synced(cls, params: Params) -> "LookaheadParams":
        """Both equal to the parameters; the slow ones in memory of their own, so that both can be donated."""
        return cls(fast=params, slow=jax.tree.map(lambda p: jnp.array(p) if leafwise.is_float(p) else p, params))


@state
class LookaheadState(NamedTuple):
    """State of `lookahead`."""

    fast_state: State  # the inner transformation's own
    steps_since_sync: Array  # int32 scalar


@state
class LookaheadPullbackState(NamedTuple):
    """State of `lookahead` with `pullback_state`."""

    fast_state: State
    steps_since_sync: Array
    slow_state: State  # the inner one as it was after the last step back


@transformation
class lookahead(GradientTransformation):
    """Lets a transformation make k steps, then moves slow parameters toward where it came, and begins there anew.

        fast <- fast + u;   at every k-th step:  slow <- slow + slow_step_size (fast - slow);   fast <- slow

        params = LookaheadParams.init_synced(params)
        state = tx.init(params)
        updates, state = tx.update(grads_at(params.fast), state, params)      # updates are a pair, too
        params = apply_updates(params, updates)

    It stands outermost: the parameters are a pair, the gradients are not.

    Args:
      fast_optimizer: a transformation, or a foreign `(init, update)` pair.
      sync_period: k, at least 1.
      slow_step_size: in [0, 1].
      reset_state: begin with a fresh inner state, too.
      pullback_state: let the inner state follow as the slow parameters do: at a step back its averages become
        slow + slow_step_size (fast - slow), slow being what they became at the last one, at first those of `init`.
        Counts stay.

    State: 4 bytes and the inner one's, that twice with pullback_state; 4 bytes per float32 parameter more in the
      parameters. Reads: params.
    Raises:
      TypeError: the parameters are no `LookaheadParams`.
      ValueError: both reset_state and pullback_state.
    Source: Zhang, Lucas, Hinton, Ba, Lookahead optimizer, NeurIPS 2019, Algorithm 1 (arXiv:1907.08610).
    Differs from Optax: the inner state is reset by selection, so that random keys in it
      pass; extra arguments reach the inner one.
    """

    fast_optimizer: GradientTransformation = part(convert=as_transformation)
    sync_period: int = whole(within="[1, inf)")
    slow_step_size: Hyperparameter = number(within="[0, 1]")
    reset_state: bool = flag(default=False)
    pullback_state: bool = flag(default=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reset_state and self.pullback_state:
            raise ValueError("`lookahead`: reset_state and pullback_state are two ways to go on: choose one.")

    def init(self, params):
        fast = params.fast if isinstance(params, LookaheadParams) else params
        state = LookaheadState(self.fast_optimizer.init(fast), start())
        return LookaheadPullbackState(*state, self.fast_optimizer.init(fast)) if self.pullback_state else state

    def update(self, updates, state, params=None, **extra):
        fast, slow = _pair(params)
        (step_size,) = at(state.steps_since_sync, self.slow_step_size)
        steps, inner = self.fast_optimizer.update(updates, state.fast_state, fast, **extra)
        sync = state.steps_since_sync == self.sync_period - 1

        def leaf(u, p, s):
            way = p + u - s
            return jnp.where(sync, s + step_size * way - p, u), jnp.where(sync, step_size * way, jnp.zeros_like(way))

        wide = [leafwise.widen(leafwise.floats(x)) for x in (steps, fast, slow)]
        moves = leafwise.unzip_map(leaf, *wide, outputs=2)
        if self.reset_state:
            select = lambda new, old: jax.lax.select(sync, jnp.asarray(new, old.dtype), old)
            inner = jax.tree.map(select, self.fast_optimizer.init(fast), inner)
        since = jnp.where(sync, 0, state.steps_since_sync + 1)
        if not self.pullback_state:
            return LookaheadParams(*moves), LookaheadState(inner, since)

        def back(now: Any, slow: Any) -> Any:
            if not leafwise.is_float(now):
                return now
            wide_now, wide_slow = leafwise.widen((now, slow))
            return jnp.where(sync, (wide_slow + step_size * (wide_now - wide_slow)).astype(now.dtype), now)

        inner = jax.tree.map(back, inner, state.slow_state)
        keep = lambda new, old: jnp.where(sync, new, old) if leafwise.is_float(new) else new
        slow_state = jax.tree.map(keep, inner, state.slow_state)
        return LookaheadParams(*moves), LookaheadPullbackState(inner, since, slow_state)

    # The parameters are a pair and the gradients are not: what goes around every other `init` and `update` does not
    # apply.
    init.goes_around = update.goes_around = None  # pyright: ignore[reportFunctionMemberAccess]

    def eval_params(self, state, params):
        return _pair(params).slow


def _pair(params: Any) -> LookaheadParams:
    if not isinstance(params, LookaheadParams):
        raise TypeError(
            f"`lookahead`: the parameters must be LookaheadParams, such as `LookaheadParams.init_synced(params)`, got "
            f"{type(params).__name__}."
        )
    return params

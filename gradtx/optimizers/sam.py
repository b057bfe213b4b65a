"""Sharpness-aware minimization (Foret et al., 2021): gradients where a small step uphill leads."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.calls import given_what_it_names
from gradtx.clock import start
from gradtx.combine.branch import update_if
from gradtx.combine.record import listening
from gradtx.core import (
    GradientTransformation,
    Params,
    State,
    as_transformation,
    require_params,
    transformation,
)
from gradtx.placement import differing_like
from gradtx.value import flag, part, state, static, whole


@state
class SAMState(NamedTuple):
    """State of `sam`."""

    steps_since_sync: Array  # int32 scalar: steps uphill since the last one down
    opt_state: State
    adv_state: State
    cache: Params | None  # the parameters before the steps uphill, as they were stored; None in opaque mode


@transformation
class sam(GradientTransformation):
    """Walks uphill for some steps, takes the gradient there, and steps down with it from where it began.

        q = p;   sync_period - 1 times:  q <- q - step of `adv_optimizer` at (g(q), q)
        u = step of `optimizer` at (g(q), p)

    The method of the paper, with radius rho, is

        sam(sgd(0.1), chain(normalize(), sgd(rho)))

    With `normalize_adaptive` in the place of `normalize` it is `asam`; with `minus_surrogate_gap` before `optimizer`,
    `gsam`.

    With `opaque_mode` one update does all that: it is called as

        updates, state = tx.update(grads, state, params, grad_fn=jax.grad(loss))

    Without, one update does one of the steps, and the parameters walk: `sync_period` calls move the model once, and
    whatever looks at the parameters in between sees those uphill. `eval_params(tx, state, params)` gives those
    where the walk began.

    Args:
      optimizer: steps down; a transformation that ends in a descent step, or a foreign `(init, update)` pair.
      adv_optimizer: its steps, turned around, lead uphill; of the same kind.
      sync_period: gradients for one step down, at least 1; 1 is `optimizer` alone.
      reset_state: begin each walk with a fresh state of `adv_optimizer`.
      opaque_mode: make the whole walk in one update.
      batch_axis_name: of `jax.pmap` or `jax.shard_map`, over which opaque mode averages the gradients that it takes.

    State: 4 bytes, and those of both; 4 bytes per float32 parameter more without `opaque_mode`. Reads: params. In
      opaque mode `grad_fn=`, a function of the parameters that returns their gradients; one of two arguments is given
      the number of the step uphill, 0 at the first, too. Or `value_fn=`, of which the gradient is taken. They are
      called with the parameters in float32 or wider.
    Raises:
      ValueError: opaque mode without either.
    Source: Foret, Kleiner, Mobahi, Neyshabur, Sharpness-aware minimization for efficiently improving generalization,
      ICLR 2021, Algorithm 1 (arXiv:2010.01412).
    Differs from Optax: with a period of 1 each step begins where the last one ended; what is not taken is left out by
      selection, so that one infinite gradient does not stay, and random keys pass; the kept parameters are a copy;
      extra arguments reach both.
    """

    optimizer: GradientTransformation = part(convert=as_transformation)
    adv_optimizer: GradientTransformation = part(convert=as_transformation)
    sync_period: int = whole(default=2, within="[1, inf)")
    reset_state: bool = flag(default=True)
    opaque_mode: bool = flag(default=False)
    batch_axis_name: Any = static(default=None)

    def init(self, params):
        opt_state, adv_state = self.optimizer.bare_init(params), self.adv_optimizer.bare_init(params)
        cache = None if self.opaque_mode else geometry.copied(params)
        return differing_like(SAMState(start(), opt_state, adv_state, cache), params)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        return (self._opaque if self.opaque_mode else self._transparent)(updates, state, params, extra)

    def eval_params(self, state, params):
        home = params
        if state.cache is not None:
            at_home = state.steps_since_sync == 0
            home = leafwise.map(lambda p, c: p if c is None else jnp.where(at_home, p, c), params, state.cache)
        return self.optimizer.eval_params(state.opt_state, home)

    def _transparent(self, updates: Any, state: SAMState, params: Any, extra: dict) -> tuple:
        """One step, uphill or down."""
        last = state.steps_since_sync == self.sync_period - 1
        first = state.steps_since_sync == 0
        home = jax.tree.map(lambda p, c: jnp.where(first, p, c), params, state.cache)

        def down():
            steps, opt_state = self.optimizer.bare_update(updates, state.opt_state, home, **extra)
            steps = leafwise.map(lambda u, p, c: (c - p) + u, steps, params, home)
            return steps, (opt_state, self._next(state.adv_state, params))

        def up():
            steps, adv_state = self.adv_optimizer.bare_update(updates, state.adv_state, params, **extra)
            return leafwise.map(jnp.negative, steps), (state.opt_state, adv_state)

        states = state.opt_state, state.adv_state
        outgoing, (opt_state, adv_state) = update_if(last, down, updates, states, otherwise=up)
        steps_since_sync = jnp.where(last, 0, state.steps_since_sync + 1)
        return outgoing, SAMState(steps_since_sync, opt_state, adv_state, home)

    def _opaque(self, updates: Any, state: SAMState, params: Any, extra: dict) -> tuple:
        """The whole walk."""
        slope, grads, there, adv_state = self._slope(extra), updates, params, self._next(state.adv_state, params)
        for i in range(self.sync_period - 1 if jax.tree.leaves(updates) else 0):
            with listening():
                steps, adv_state = self.adv_optimizer.bare_update(grads, adv_state, there, **extra)
            there = leafwise.choose(lambda p, u: p if u is None else p - u, there, steps)
            grads = leafwise.choose(lambda _, g: g, updates, slope(there, i))
            if self.batch_axis_name is not None:
                grads = jax.lax.pmean(grads, self.batch_axis_name)
        extra = extra | {"grad_at_home": updates}
        outgoing, opt_state = self.optimizer.bare_update(grads, state.opt_state, params, **extra)
        kept = state.adv_state if self.reset_state else adv_state  # what is reset anyway keeps its sharding so
        return outgoing, SAMState(state.steps_since_sync, opt_state, kept, None)

    def _next(self, adv_state: State, params: Any) -> State:
        """The state with which the next walk begins."""
        if not self.reset_state:
            return adv_state
        fresh = differing_like(self.adv_optimizer.bare_init(params), params)
        return leafwise.cast_like(fresh, adv_state)

    def _slope(self, extra: dict) -> Callable:
        """The function that gives the gradients at a point, at a step."""
        if (grad_fn := extra.get("grad_fn")) is None:
            if (value_fn := extra.get("value_fn")) is None:
                raise ValueError(
                    f"`{self.name}` with opaque_mode takes gradients itself: call "
                    "`update(grads, state, params, grad_fn=jax.grad(loss))`, or pass `value_fn=loss`."
                )
            grad_fn = jax.grad(value_fn)
        return given_what_it_names(grad_fn)

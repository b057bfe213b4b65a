"""Sophia (Liu et al., 2023): momentum over an estimate of the curvature, bounded in every coordinate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick, time
from gradtx.combine.branch import update_if
from gradtx.combine.chain import chain
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, State, as_transformation, require_params, transformation
from gradtx.moments import by_parts, ema, ema_mass
from gradtx.optimizers.hutchinson import hutchinson_estimator_diag_hessian
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import flag, number, part, state, storage_dtype, whole


@state
class SophiaState(NamedTuple):
    """State of `scale_by_sophia`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    nu: Means  # running mean of the Hessian's diagonal, real, float32 or wider
    hessian_fn_state: State  # that of `hessian_diagonal_fn`


@transformation
class scale_by_sophia(GradientTransformation):
    """Divides the gradient's running mean by a running mean of the Hessian's diagonal, and bounds each coordinate.

        mu = b1 mu + (1 - b1) g                   from zero
        u = clip(mu / (1 - b1^t) / max(gamma nu, eps), clip_threshold)        nu before this update
        nu = b2 nu + (1 - b2) h                   from zero, at updates 1, 1 + update_interval, ...

    Where the curvature is small or negative, and at the first update, a coordinate moves by the bound. Real and
    imaginary parts are bounded apart.

        updates, state = tx.update(grads, state, params, obj_fn=loss)

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      eps: least divisor. Not negative; at 0, where gamma nu is not positive, u is at its bound, or 0 without.
      gamma: scale of the curvature, not negative: less, and more coordinates are at the bound. The paper tunes it until
        10 to 50 % are not.
      clip_threshold: the bound, not negative; None: no bound.
      update_interval: updates from one estimate to the next, 1 or more.
      hessian_diagonal_fn: a transformation, or a foreign pair, that returns h. It is given what this one is given, when
        it is due. On several devices that hold different data it must average.
      mu_dtype: storage of mu; None means float32 or wider.
      verbose: print the share of coordinates below the bound ...
      print_win_rate_every_n_steps: ... at every n-th update; 0: never.

    State: 8 bytes per float32 parameter, and that of `hessian_diagonal_fn`. Reads: params, and what
      `hessian_diagonal_fn` reads.
    Source: Liu et al., Sophia: a scalable stochastic second-order optimizer for language model pre-training, ICLR 2024,
      Algorithm 3 (arXiv:2305.14342); the estimator has signs where the paper has normal numbers.
    Differs from Optax: nu is float32 or wider; the estimator's key is its field, not state; masks and frozen parameters
      are filled in for `obj_fn`.
    """

    b1: Hyperparameter = number(default=0.965, within="[0, 1)")
    b2: Hyperparameter = number(default=0.99, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    gamma: Hyperparameter = number(default=0.01, within="[0, inf)")
    clip_threshold: Hyperparameter | None = number(default=1.0, within="[0, inf)", optional=True)
    update_interval: int = number(default=10, within="[1, inf)", integer=True)
    hessian_diagonal_fn: GradientTransformation = part(
        default=hutchinson_estimator_diag_hessian(), convert=as_transformation
    )
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    verbose: bool = flag(default=False)
    print_win_rate_every_n_steps: int = whole(default=0, within="[0, inf)")

    def init(self, params):
        inner = self.hessian_diagonal_fn.bare_init(params)
        return SophiaState(start(), leafwise.zeros(params, self.mu_dtype), leafwise.zeros(params, real=True), inner)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        b1, b2, eps, gamma = at(state.count, self.b1, self.b2, self.eps, self.gamma)
        (bound,) = (None,) if self.clip_threshold is None else at(state.count, self.clip_threshold)
        count = tick(state.count)
        scale1 = 1 / ema_mass(b1, count)

        def leaf(g, mu, nu):
            mu = ema(mu, g, b1)
            divisor = jnp.maximum(gamma * nu, eps)
            return by_parts(lambda m: _bounded(m, divisor, bound), mu * scale1), mu

        def estimate():
            with time(state.count):
                h, inner = self.hessian_diagonal_fn.bare_update(updates, state.hessian_fn_state, params=params, **extra)
            averaged = leafwise.map(lambda h, nu: ema(nu, h.real, b2), h, state.nu)
            return leafwise.choose(lambda old, new: old if new is None else new, state.nu, averaged), inner

        outgoing, mu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=2)
        if bound is not None:
            record(extra, clipped=lambda: leafwise.anywhere(lambda u: jnp.abs(u) >= bound, outgoing))
            self.tell(outgoing, bound, count)
        is_due = state.count % self.update_interval == 0
        nu, inner = update_if(is_due, estimate, state.nu, state.hessian_fn_state)
        return outgoing, SophiaState(count, mu, nu, inner)

    def tell(self, updates: Any, bound: Any, count: Array) -> None:
        """Prints the share of coordinates below the bound, when it is asked for and due."""
        if not self.verbose or not self.print_win_rate_every_n_steps:
            return
        below = geometry.total(geometry.sums(lambda u: 1.0 * (jnp.abs(u) < bound), updates))
        share = below / max(sum(u.size for u in jax.tree.leaves(updates)), 1)
        say = lambda: jax.debug.print("Sophia: {} of the coordinates are below the bound", share)
        jax.lax.cond(count % self.print_win_rate_every_n_steps == 0, say, lambda: None)


def _bounded(m: Array, divisor: Array, bound: Any) -> Array:
    """m / divisor within the bound; at the bound where the divisor is 0, and 0 if there is none."""
    u = geometry.ratio(m, divisor)
    return u if bound is None else jnp.where(divisor > 0, jnp.clip(u, -bound, bound), jnp.sign(m) * bound)


def sophia(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.965,
    b2: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 1e-4,
    weight_decay_mask: Any = None,
    gamma: Hyperparameter = 0.01,
    clip_threshold: Hyperparameter | None = 1.0,
    update_interval: int = 10,
    hessian_diagonal_fn: Any = hutchinson_estimator_diag_hessian(),  # noqa: B008
    mu_dtype: DTypeLike | None = None,
    verbose: bool = False,
    print_win_rate_every_n_steps: int = 0,
) -> GradientTransformation:
    """Bounded steps of momentum over curvature, which is estimated now and then. Other arguments: `scale_by_sophia`.

        p <- p - learning_rate (u + weight_decay p)

        updates, state = tx.update(grads, state, params, obj_fn=loss)

    Args:
      learning_rate: in units of the parameters; a coordinate moves by at most this times clip_threshold, and its decay.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      weight_decay_mask: which leaves decay; None, all. See `add_decayed_weights`.
    """
    bounds = gamma, clip_threshold, update_interval, hessian_diagonal_fn
    return chain(
        scale_by_sophia(b1, b2, eps, *bounds, mu_dtype, verbose, print_win_rate_every_n_steps),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )

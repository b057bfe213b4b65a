"""Mechanic (Cutkosky, Defazio, Mehta, 2023): a factor on another transformation's steps, learned by betting."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick, time
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.moments import abs_sq, length
from gradtx.value import number, part, state, whole


@state
class MechanicState(NamedTuple):
    """State of `mechanize`. Vectors have an entry for each of `num_betas` decays, float32 or wider."""

    base_optimizer_state: State
    count: Array  # int32 scalar: updates made so far
    r: Array  # decayed reward
    m: Array  # largest |h|, decayed
    v: Array  # sum of h^2, decayed
    s: Array  # factors, of which the sum counts
    x0: Params  # the parameters before the first update, as they were stored


@transformation
class mechanize(GradientTransformation):
    """Multiplies the steps of another transformation, all since the start, by a factor that it learns.

        delta = (p0 - p) / (sum s + eps),    h = <g + weight_decay sum s |g| / (|p| + eps) p, delta>
        m' = max(beta m, |h| + eps),    v' = beta^2 v + h^2,    r' = beta r + clip(h, m) s
        s' = (s_init / num_betas m' + max(r', 0)) / (sqrt(v') + eps)
        u = p0 - p - sum s' (delta - step)        step: what `base_optimizer` returns

    for beta = 1 - 10^-i, i = 1 ... num_betas; products and norms are over all leaves. p0 are the parameters at the
    first update. Give `base_optimizer` a rate or a schedule with peak 1.

    Args:
      base_optimizer: a transformation that ends in a descent step, or a foreign `(init, update)` pair; its steps must
        not depend on how long the parameters are, as LARS's and LAMB's do.
      weight_decay: of the gradient that the factor is learned from, not of the steps; steadies it. Not negative.
      eps: in units of h, of sum s, and of the parameters. Not negative.
      s_init: the sum of s at the first step, about, positive. A schedule is read at 0 for the start.
      num_betas: 1 or more.

    State: 4 bytes per float32 parameter, 16 per decay, and the base's. Reads: params; what the base reads.
    Source: Cutkosky, Defazio, Mehta, Mechanic: a learning rate tuner, NeurIPS 2023, Algorithm 1 (arXiv:2306.00144),
      with the authors' later bound on h.
    Differs from Optax: vectors are float32 or wider whatever the parameters are, and the first parameters a copy; with
      eps = 0 and gradients that have been zero the factor is 0, not NaN.
    """

    base_optimizer: GradientTransformation = part(convert=as_transformation)
    weight_decay: Hyperparameter = number(default=1e-2, within="[0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    s_init: Hyperparameter = number(default=1e-6, within="(0, inf)")
    num_betas: int = whole(default=6, within="[1, inf)")

    def init(self, params):
        (s_init,) = at(start(), self.s_init)
        each = lambda x: geometry.scalar(params, np.ones(self.num_betas) * x)
        return MechanicState(
            base_optimizer_state=self.base_optimizer.bare_init(params),
            count=start(),
            r=each(0),
            m=each(0),
            v=each(0),
            s=each(s_init),
            x0=geometry.copied(params),
        )

    def eval_params(self, state, params):
        return self.base_optimizer.eval_params(state.base_optimizer_state, params)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, eps, s_init = at(state.count, self.weight_decay, self.eps, self.s_init)
        with time(state.count):
            steps, inner = self.base_optimizer.bare_update(updates, state.base_optimizer_state, params, **extra)
        first = lambda p, p0: jnp.where(state.count == 0, p, p0)
        gone = lambda p, p0: first(p, p0) - p

        def entries(g, p, p0):
            back = gone(p, p0)
            return geometry.product(g, back), geometry.product(jnp.conj(p), back), abs_sq(g), abs_sq(p)

        along, outward, g2, p2 = geometry.totals(4, entries, updates, params, state.x0)
        per_factor = geometry.ratio(1.0, jnp.sum(state.s) + eps)
        pull = decay * jnp.sum(state.s) * geometry.ratio(length(g2), length(p2) + eps)
        h = (along + pull * outward) * per_factor

        betas = (1 - 0.1 ** np.arange(1, self.num_betas + 1)).astype(state.s.dtype)
        m = jnp.maximum(betas * state.m, jnp.abs(h) + eps)
        v = betas**2 * state.v + h**2
        r = betas * state.r + jnp.clip(h, -state.m, state.m) * state.s
        s = geometry.ratio(s_init / self.num_betas * m + jnp.maximum(r, 0), length(v) + eps)
        factor = jnp.sum(s)
        record(extra, learning_rate=lambda: factor)

        def leaf(u, p, p0):
            back = gone(p, p0)
            return back - factor * (back * per_factor - u)

        outgoing = leafwise.map(leaf, steps, params, state.x0)
        x0 = leafwise.map(first, params, state.x0)
        return outgoing, MechanicState(inner, tick(state.count), r, m, v, s, x0)

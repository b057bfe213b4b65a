"""ScheduleFree+ (Defazio, 2026): schedule-free AdamW whose rate is Polyak's step, found from the loss."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, as_float, at, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import ema, ema_mass
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.optimizers.momo import required_value
from gradtx.schedules.schedule import STEPS, Steps
from gradtx.types import Points
from gradtx.value import number, state, static, storage_dtype


@state
class ScheduleFreePlusState(NamedTuple):
    """State of `schedule_free_plus`."""

    adam: ScaleByAdamState  # the count of updates, and the moments of g; mu is stored as `state_dtype`
    z: Points  # the iterates, stored as `state_dtype`
    x: Points  # their weighted mean, stored as `state_dtype`
    grad_l1: Array  # running mean of sum |g|, scalar, float32 or wider
    max_lr: Array  # the largest rate so far, scalar, float32 or wider
    weight_sum: Array  # of the weights so far, scalar, float32 or wider


@transformation
class schedule_free_plus(GradientTransformation):
    """Schedule-free AdamW, with momentum of its own, and a rate that needs no tuning: Polyak's, from the loss.

        s = sf_b1                                      in steps of log(1 - s) to sf_b1_max, over sf_b1_anneal_steps
        e = polyak_beta e + (1 - polyak_beta) sqrt(pi / 2) sum |g|                           from zero
        a = learning_rate max(0, value + s <g, z - x>) / (e / (1 - polyak_beta^t))           0 where e is 0
        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2                        from zero
        z' = z - a^2 weight_decay y - a (mu / (1 - b1^t)) / (sqrt(nu / (1 - b2^t)) + eps)
        w = t^r (largest a so far)^weight_lr_power,    c = w / sum of w so far;  1 during c_warmup, which no sum counts
        x' = (1 - c) x + c z'
        y' = s x' + (1 - s) z',   u = y' - y

    The parameters are y, of which `value` and g are. The model is to be evaluated, and kept in the end, with x:
    `eval_params(tx, state, params)` gives it. Products and sums are over all leaves. These are whole steps.

        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params, value=value)

    Args:
      learning_rate: factor on the rate; 1, or a schedule that warms up to 1 and stays. Not negative.
      b1, b2, eps: as in `scale_by_adam`.
      sf_b1: weight of x in y, in [0, 1).
      weight_decay: times the square of the rate, so 20 to 50 rather than 0.1. Not negative.
      r: how much more the later steps count; 0 or, for long runs, 2. Not negative.
      weight_lr_power: how much less the steps of a warmup count. Not negative.
      polyak_beta: decay of e, in [0, 1); 0: each gradient's own.
      c_warmup: updates during which x is z. Once or twice the warmup of the rate.
      sf_b1_anneal_steps: updates until sf_b1_max; 0: s stays sf_b1.
      sf_b1_max: s at the end, in [0, 1).
      state_dtype: storage of mu, z and x; None means float32 or wider.
      mask: which leaves decay; see `add_decayed_weights`.

    State: 16 bytes per float32 parameter and 16. Reads: params; `value=`, the loss whose gradients the updates are;
      gradients, z and x once more, for the sums.
    Raises:
      ValueError: no value, or no params.
    Source: Defazio, ScheduleFree+: scaling learning-rate-free and schedule-free learning to large language models, 2026
      (arXiv:2605.19095), as its code's `AdamCScheduleFreePlusPaper`, where `eps` is also the least largest rate. The
      decay with the square of the rate is of arXiv:2506.02285.
    """

    learning_rate: Hyperparameter = number(default=1.0, within="[0, inf)")
    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.95, within="[0, 1)")
    sf_b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    r: Hyperparameter = number(default=0.0, within="[0, inf)")
    weight_lr_power: Hyperparameter = number(default=2.0, within="[0, inf)")
    polyak_beta: Hyperparameter = number(default=0.0, within="[0, 1)", kw_only=True)
    c_warmup: Steps = number(default=0, integer=True, within=STEPS, kw_only=True)
    sf_b1_anneal_steps: Steps = number(default=0, integer=True, within=STEPS, kw_only=True)
    sf_b1_max: Hyperparameter = number(default=0.965, within="[0, 1)", kw_only=True)
    state_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    mask: Any = static(default=None, convert=as_mask, kw_only=True)

    def init(self, params):
        adam = scale_by_adam(mu_dtype=self.state_dtype).bare_init(params)
        z, x = (leafwise.cast_like(geometry.copied(params), adam.mu) for _ in range(2))
        grad_l1, max_lr, weight_sum = (geometry.scalar(params, 0) for _ in range(3))
        return ScheduleFreePlusState(adam, z, x, grad_l1, max_lr, weight_sum)

    def update(self, updates, state, params=None, *, value=None, **extra):
        params, now = require_params(params, self), state.adam.count
        factor, decay, r = at(now, self.learning_rate, self.weight_decay, self.r)
        beta, power = at(now, self.polyak_beta, self.weight_lr_power)
        value, s, count = required_value(self, value, state.grad_l1), self._share(now), tick(now)

        entries = lambda g, z, x: (jnp.abs(g), geometry.product(g, z - x))
        size, along = geometry.totals(2, entries, updates, state.z, state.x)
        grad_l1 = ema(state.grad_l1, math.sqrt(math.pi / 2) * size, beta)
        rate = factor * geometry.ratio(jnp.maximum(value + s * along, 0), grad_l1 / ema_mass(beta, count))
        record(extra, learning_rate=lambda: rate)

        max_lr, averages = jnp.maximum(state.max_lr, rate), now >= self.c_warmup
        moved = max_lr > 0
        largest_to_power = jnp.where(moved, jnp.where(moved, max_lr, 1) ** power, jnp.where(power == 0, 1.0, 0.0))
        weight = largest_to_power * as_float(count) ** r
        weight_sum = state.weight_sum + jnp.where(averages, weight, 0)
        c = jnp.where(averages, geometry.ratio(weight, weight_sum), 1)

        directions, adam = scale_by_adam(self.b1, self.b2, self.eps).bare_update(updates, state.adam, params)

        def leaf(d, z, x, y, decays):
            step = rate * jnp.conj(d)
            z = z - (step + rate**2 * decay * y if decays else step)
            x = (1 - c) * x + c * z
            return s * x + (1 - s) * z - y, z, x

        decays = chosen(self.mask, params, self.name)
        outgoing, z, x = leafwise.unzip_map(leaf, directions, state.z, state.x, params, decays, outputs=3)
        return outgoing, ScheduleFreePlusState(adam, z, x, grad_l1, max_lr, weight_sum)

    def _share(self, count: Array) -> Array:
        """s, the weight of x in y."""
        first, last = at(count, self.sf_b1, self.sf_b1_max)
        done = jnp.where(
            self.sf_b1_anneal_steps > 0, jnp.minimum(as_float(count) / jnp.maximum(self.sf_b1_anneal_steps, 1), 1), 0
        )
        return 1 - jnp.exp((1 - done) * jnp.log1p(-first) + done * jnp.log1p(-last))

    def eval_params(self, state, params):
        keep = lambda y, x: y if x is None or not leafwise.is_float(y) else x.astype(jnp.result_type(y))
        return leafwise.map(keep, params, state.x)

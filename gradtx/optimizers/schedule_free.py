"""Schedule-free learning (Defazio et al., 2024): an average of the iterates in the place of a decaying rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, tick, time
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.optimizers.rmsprop import scale_by_rms
from gradtx.optimizers.sgd import sgd
from gradtx.schedules.polynomial import warmup_constant_schedule
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, part, state, storage_dtype


@state
class ScheduleFreeState(NamedTuple):
    """State of `schedule_free`."""

    b1: Array  # with which the parameters were made of x and z last; scalar, float32 or wider
    weight_sum: Array  # of the weights so far, scalar, float32 or wider
    step_count: Array  # int32 scalar: updates made so far, and 1
    max_lr: Array  # the largest rate so far, scalar, float32 or wider
    base_optimizer_state: State
    z: Params  # the iterates, stored as `state_dtype`


@transformation
class schedule_free(GradientTransformation):
    """Takes gradients between another transformation's iterates z and their weighted mean x, of which y is made.

        z' = z + step                             step: what `base_optimizer` returns, given gradients at y
        w = (largest rate so far)^weight_lr_power,      c = w / sum of w so far           0 while the sum is 0
        x' = (1 - c) x + c z'
        y' = b1 x' + (1 - b1) z',   u = y' - y

    The parameters are y. The model is to be evaluated, and kept in the end, with x, which is not stored: it is
    (y - (1 - b1) z) / b1. `eval_params(tx, state, params)` gives it.

    It is computed as u = c (z' - y) + (1 - c) (1 - b1) step, without x. Where b1 has grown since the last update, r
    times, as u = (1 - r (1 - c)) (z' - y) + (1 - c) (r - b1) step.

    Args:
      base_optimizer: a transformation that ends in a descent step, without momentum of its own; or a foreign
        `(init, update)` pair.
      learning_rate: the base's, for the weights w: a number, or a schedule that warms up and then stays. Not negative.
        A schedule is read at t + 1, so that w is not 0 at the start of a warmup.
      b1: weight of x in y, in (0, 1]. 0.9; 0.95 and 0.98 for long runs. 1 takes gradients at the mean.
      weight_lr_power: how much less the steps of a warmup count. Not negative; 0 is the plain mean.
      state_dtype: storage of z; None means float32 or wider. z gains little steps, which are lost below that.

    State: 4 bytes per float32 parameter, 16, and the base's. Reads: params; what the base reads.
    Source: Defazio, Yang, Mehta, Mishchenko, Khaled, Cutkosky, The road less scheduled, NeurIPS 2024, equations 3-5 and
      Algorithm 1 (arXiv:2405.15682).
    Differs from Optax: z is float32 or wider, and so are the scalars, whatever the parameters are; y and the evaluated
      x are made with one b1, which may be a schedule. x is found in any state, by `gradtx.eval_params`.
    """

    base_optimizer: GradientTransformation = part(convert=as_transformation)
    learning_rate: Hyperparameter = number(within="[0, inf)")
    b1: Hyperparameter = number(default=0.9, within="(0, 1]")
    weight_lr_power: Hyperparameter = number(default=2.0, within="[0, inf)")
    state_dtype: DTypeLike | None = storage_dtype(default=None)

    def init(self, params):
        step_count = jnp.ones((), jnp.int32)
        (b1,) = at(step_count - 1, self.b1)
        stored = jax.eval_shape(lambda p: leafwise.zeros(p, self.state_dtype), params)
        return ScheduleFreeState(
            b1=geometry.scalar(params, b1),
            weight_sum=geometry.scalar(params, 0),
            step_count=step_count,
            max_lr=geometry.scalar(params, 0),
            base_optimizer_state=self.base_optimizer.bare_init(params),
            z=leafwise.cast_like(geometry.copied(params), stored),
        )

    def update(self, updates, state, params=None, **extra):
        params, now = require_params(params, self), state.step_count - 1
        (rate,) = at(state.step_count, self.learning_rate)
        b1, power = at(now, self.b1, self.weight_lr_power)
        with time(now):
            steps, inner = self.base_optimizer.bare_update(updates, state.base_optimizer_state, params, **extra)
        max_lr = jnp.maximum(state.max_lr, rate)
        weight = max_lr**power
        weight_sum = state.weight_sum + weight
        c = geometry.ratio(weight, weight_sum)
        grown = b1 / state.b1
        back, along = c + (1 - grown) * (1 - c), (grown - b1) * (1 - c)

        def leaf(u, z, y):
            z = z + u
            return back * (z - y) + along * u, z

        outgoing, z = leafwise.unzip_map(leaf, steps, state.z, params, outputs=2)
        b1 = geometry.scalar(params, b1)
        return outgoing, ScheduleFreeState(b1, weight_sum, tick(state.step_count), max_lr, inner, z)

    def eval_params(self, state, params):
        return _mean(state, params)


def schedule_free_eval_params(state: State, params: Params) -> Params:
    """The parameters to evaluate with, x, from a state that holds a `ScheduleFreeState`, at any depth.

    `eval_params(tx, state, params)` does it for every transformation; this is for programs that have no `tx`.

    Args:
      state: of `schedule_free`, or of what stands around it. Optax's will do.
      params: the parameters now, y.

    Raises:
      ValueError: there is no such state in it.
    """
    is_one = lambda x: getattr(x, "_fields", ()) == ScheduleFreeState._fields
    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if not found:
        raise ValueError(f"`schedule_free_eval_params`: the state, a {type(state).__name__}, has no ScheduleFreeState.")
    for one in found:  # several where parameters are partitioned: each knows its own
        params = _mean(one, params)
    return params


def _mean(state: Any, params: Params) -> Params:
    """x where the state has a z, the parameters elsewhere; in their dtypes."""

    def leaf(y, z):
        if z is None or not leafwise.is_float(y):
            return y
        wide_y, wide_z = leafwise.widen((y, z))
        return ((wide_y - (1 - state.b1) * wide_z) / state.b1).astype(jnp.result_type(y))

    with jax.numpy_dtype_promotion("standard"):  # z may be wider than a parameter
        return leafwise.map(leaf, params, state.z)


def schedule_free_sgd(
    learning_rate: Hyperparameter = 1.0,
    warmup_steps: int | None = None,
    b1: Hyperparameter = 0.9,
    weight_decay: Hyperparameter | None = None,
    weight_lr_power: Hyperparameter = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Any = None,
) -> GradientTransformation:
    """`schedule_free` of gradient descent: z <- z - learning_rate (g + weight_decay y). Others: `schedule_free`.

    Args:
      learning_rate: in units of the parameters per unit of gradient; larger than with a schedule.
      warmup_steps: during which the rate rises from 0 in a straight line; None or 0 for none.
      weight_decay: not negative; None for none.
      mask: which leaves decay; see `add_decayed_weights`.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    links = [] if weight_decay is None else [add_decayed_weights(weight_decay, mask)]
    return schedule_free(chain(*links, sgd(rate)), rate, b1, weight_lr_power, state_dtype)


def schedule_free_adamw(
    learning_rate: Hyperparameter = 0.0025,
    warmup_steps: int | None = None,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    weight_lr_power: Hyperparameter = 2.0,
    state_dtype: DTypeLike | None = None,
    *,
    mask: Any = None,
) -> GradientTransformation:
    """`schedule_free` of AdamW without its first moment: z <- z - learning_rate (g / (sqrt(v) + eps) + weight_decay y).

    Other arguments: `schedule_free`, as b1; those of v: `scale_by_rms`.

    State: 8 bytes per float32 parameter, and 20. Reads: params.

    Args:
      learning_rate: in units of the parameters; 1 to 10 times that of AdamW with a schedule.
      warmup_steps: during which the rate rises from 0 in a straight line; None or 0 for none.
      weight_decay: fraction of y removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.
    """
    rate = _warmed_up(learning_rate, warmup_steps)
    base = chain(
        scale_by_rms(b2, eps, eps_in_sqrt=False, bias_correction=True),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(rate),
    )
    return schedule_free(base, rate, b1, weight_lr_power, state_dtype)


def _warmed_up(rate: Hyperparameter, steps: int | None) -> Hyperparameter:
    return rate if steps is None else warmup_constant_schedule(0, rate, steps)

"""Schedule-free learning (Defazio et al., 2024): an average of the iterates in the place of a decaying rate."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, arrays_at, as_float, at, tick, time
from gradtx.core import (
    GradientTransformation,
    Params,
    State,
    Updates,
    as_transformation,
    require_params,
    transformation,
)
from gradtx.schedules.polynomial import warmup_constant_schedule
from gradtx.schedules.schedule import Schedule, following
from gradtx.types import Points
from gradtx.value import flag, number, part, state, storage_dtype, value


@state
class ScheduleFreeState(NamedTuple):
    """State of `schedule_free`."""

    b1: Array  # with which the parameters were made of x and z last; scalar, float32 or wider
    weight_sum: Array  # of the weights so far, scalar, float32 or wider
    step_count: Array  # int32 scalar: updates made so far, and 1
    max_lr: Array  # the largest rate so far, scalar, float32 or wider
    base_optimizer_state: State
    z: Points  # the iterates, stored as `state_dtype`


@state
class ScheduleFreeWithMeanState(NamedTuple):
    """State of `schedule_free_with_mean`: that of `schedule_free`, and x."""

    b1: Array
    weight_sum: Array
    step_count: Array
    max_lr: Array
    base_optimizer_state: State
    z: Points
    x: Points  # the weighted mean of the iterates, stored as `state_dtype`


@transformation
class schedule_free(GradientTransformation):
    """Takes gradients between another transformation's iterates z and their weighted mean x, of which y is made.

        z' = z + step                             step: what `base_optimizer` returns, given gradients at y
        w = t^r (largest rate so far)^weight_lr_power,      c = w / sum of w so far       0 while the sum is 0
        x' = (1 - c) x + c z'
        y' = b1 x' + (1 - b1) z',   u = y' - y

    The parameters are y. The model is to be evaluated, and kept in the end, with x: `eval_params(tx, state, params)`
    gives it. It is not stored, but (y - (1 - b1) z) / b1, in which roundings of y count 1 / b1 times. With parameters
    in bfloat16, or b1 near 0, it is to be stored: `schedule_free_with_mean`.

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
      r: how much more the later steps count. Not negative; 0 is the plain mean.
      at_z: the base is given z as the parameters, so that weight decay in it is of the iterates, not of y.

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
    r: Hyperparameter = number(default=0.0, within="[0, inf)", kw_only=True)
    at_z: bool = flag(default=False, kw_only=True)

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
        b1, power, r = at(now, self.b1, self.weight_lr_power, self.r)
        seen = state.z if self.at_z else params
        with time(now):
            steps, inner = self.base_optimizer.bare_update(updates, state.base_optimizer_state, seen, **extra)
        max_lr = jnp.maximum(state.max_lr, rate)
        weight = max_lr**power * as_float(state.step_count) ** r
        weight_sum = state.weight_sum + weight
        c = geometry.ratio(weight, weight_sum)
        outgoing, slots = self.between(b1, c, steps, state, params)
        scalars = geometry.scalar(params, b1), weight_sum, tick(state.step_count), max_lr
        return outgoing, type(state)(*scalars, inner, *slots)

    def between(self, b1: Array, c: Array, steps: Updates, state: State, params: Params) -> tuple[Updates, list]:
        """The updates of y, and z and what else is kept, from the iterates' steps."""
        grown = b1 / state.b1
        back, along = c + (1 - grown) * (1 - c), (grown - b1) * (1 - c)

        def leaf(u, z, y):
            z = z + u
            return back * (z - y) + along * u, z

        outgoing, *slots = leafwise.unzip_map(leaf, steps, state.z, params, outputs=2)
        return outgoing, slots

    def eval_params(self, state, params):
        return _mean(state, params)


@transformation
class schedule_free_with_mean(schedule_free):
    """`schedule_free` that keeps x, and makes y of it: for parameters in bfloat16, and for b1 of 0.

    y' = b1 x' + (1 - b1) z',   u = y' - y

    So what y was rounded to is not carried on, and x is as exact as z.

    Args:
      base_optimizer, learning_rate, weight_lr_power, r, at_z: as in `schedule_free`.
      b1: weight of x in y, in [0, 1]; 0 takes gradients at the iterates.
      state_dtype: storage of z and x; None means float32 or wider.

    State: 8 bytes per float32 parameter, 16, and the base's. Reads: params; what the base reads.
    Source: as `schedule_free`; its authors' reference class keeps x, too.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1]")

    def init(self, params):
        first = super().init(params)
        return ScheduleFreeWithMeanState(*first, leafwise.cast_like(geometry.copied(params), first.z))

    def between(self, b1, c, steps, state, params):
        def leaf(u, z, x, y):
            z = z + u
            x = (1 - c) * x + c * z
            return b1 * x + (1 - b1) * z - y, z, x

        outgoing, *slots = leafwise.unzip_map(leaf, steps, state.z, state.x, params, outputs=3)
        return outgoing, slots


def schedule_free_eval_params(state: State, params: Params) -> Params:
    """The parameters to evaluate with, x, from a state that holds a `ScheduleFreeState`, at any depth.

    `eval_params(tx, state, params)` does it for every transformation; this is for programs that have no `tx`.

    Args:
      state: of `schedule_free`, or of what stands around it. Optax's will do.
      params: the parameters now, y.

    Raises:
      ValueError: there is no such state in it.
    """
    kinds = ScheduleFreeState._fields, ScheduleFreeWithMeanState._fields
    is_one = lambda x: getattr(x, "_fields", ()) in kinds
    found = [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]
    if not found:
        raise ValueError(f"`schedule_free_eval_params`: the state, a {type(state).__name__}, has no ScheduleFreeState.")
    for one in found:  # several where parameters are partitioned: each knows its own
        params = _mean(one, params)
    return params


def _mean(state: Any, params: Params) -> Params:
    """x where the state has a z, the parameters elsewhere; in their dtypes."""
    if hasattr(state, "x"):
        return leafwise.evaluated(lambda y, x: x, params, state.x)
    return leafwise.evaluated(lambda y, z: (y - (1 - state.b1) * z) / state.b1, params, state.z)


@value
class one_ahead(Schedule):
    """Another schedule, read a step ahead: for a base's rate, to be the one that the weights read.

    Args:
      schedule: a number, or a function of the count.
    """

    schedule: Hyperparameter = number()

    def value_at(self, count):
        (x,) = arrays_at(following(count), self.schedule)
        return x


def warmed_up(rate: Hyperparameter, steps: int | None) -> Hyperparameter:
    """The rate after a rise from 0 in a straight line, where there are steps for it."""
    return rate if steps is None else warmup_constant_schedule(0, rate, steps)

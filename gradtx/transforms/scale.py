"""Multiplying the updates by one number: a step size, a schedule, the learning rate."""

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.record import record
from gradtx.core import EmptyState, GradientTransformation, transformation
from gradtx.value import flag, number

ScaleState, ScaleByScheduleState = EmptyState, ClockState  # Optax's names


@transformation
class scale(GradientTransformation):
    """Multiplies the updates by a number.

        u = step_size g

    Args:
      step_size: any finite number, or a schedule; negative to turn a gradient into a descent step.

    State: the time. Reads: updates only.
    """

    step_size: Hyperparameter = number()

    def update(self, updates, state, params=None, **extra):
        (step_size,) = at(state.count, self.step_size)
        return leafwise.map(lambda g: g * step_size, updates), ClockState(tick(state.count))


def scale_by_schedule(step_size_fn: Hyperparameter) -> GradientTransformation:
    """Multiplies the updates by a schedule's value: `scale`, under Optax's name.

    u = step_size_fn(t) g,   t = 0 at the first update
    """
    return scale(step_size_fn)


@transformation
class scale_by_learning_rate(GradientTransformation):
    """Turns gradients into descent steps: multiplies the updates by minus the learning rate.

        u = -learning_rate g            (the conjugate of g where g is complex)

    JAX's gradient of a real loss with respect to a complex parameter is the conjugate of the direction of steepest
    ascent; here, where gradients become steps, it is conjugated back, so that complex parameters descend as the
    pairs of reals that they are. Do not conjugate gradients yourself.

    Args:
      learning_rate: in units of the parameters per unit of update; a number or a schedule. None leaves the updates as
        they are, sign and all.
      flip_sign: False multiplies by the learning rate and does nothing else.

    State: the time. Reads: updates only.
    """

    learning_rate: Hyperparameter | None = number(default=None, optional=True)
    flip_sign: bool = flag(default=True, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        if self.learning_rate is None:
            return updates, ClockState(tick(state.count))
        (rate,) = at(state.count, self.learning_rate)
        record(extra, learning_rate=lambda: jnp.asarray(rate))

        def leaf(g):
            if not self.flip_sign:
                return g * rate
            return jnp.conj(g) * -rate if jnp.iscomplexobj(g) else g * -rate

        return leafwise.map(leaf, updates), ClockState(tick(state.count))

"""Fromage (Bernstein et al., 2020): steps in proportion to each leaf's norm, on a sphere that does not grow."""

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.transforms.normalize import trust_ratio
from gradtx.value import number, static


@transformation
class fromage(GradientTransformation):
    """Moves each leaf by a fraction of its norm, and shrinks it by what a step at a right angle would have added.

        p <- (p - learning_rate g |p| / |g|) / sqrt(1 + learning_rate^2)         |.| is the L2 norm of a whole leaf

    A gradient at a right angle to p leaves |p| as it is. The updates are steps: nothing goes after it.

    Args:
      learning_rate: each leaf's step as a fraction of its norm; any finite number.
      min_norm: norms below it count as it, in units of the parameters and of the gradient. Not negative. At 0 a leaf of
        norm 0, or with a gradient of norm 0, takes the plain step, learning_rate g.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: params; both trees once more, for the norms.
    Source: Bernstein, Vahdat, Yue, Liu, On the distance between two neural networks and the stability of learning,
      NeurIPS 2020, Algorithm 1 (arXiv:2002.03432).
    """

    learning_rate: Hyperparameter = number()
    min_norm: Hyperparameter = number(default=1e-6, within="[0, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        rate, min_norm = at(state.count, self.learning_rate, self.min_norm)
        root = jnp.sqrt(1 + jnp.square(jnp.asarray(rate)))
        step, loss = rate / root, -jnp.square(jnp.asarray(rate)) / (root * (1 + root))  # 1 / root - 1, not rounded to 0
        record(extra, learning_rate=lambda: jnp.asarray(step))

        def leaf(g, p):
            size = step * (yield from trust_ratio(g, p, 1.0, min_norm, axis=self.axis))
            return loss * p - size * (jnp.conj(g) if jnp.iscomplexobj(g) else g)

        return leafwise.map(leaf, updates, params), ClockState(tick(state.count))

"""Keeping parameters within bounds."""

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.core import EmptyState, GradientTransformation, require_params, transformation

NonNegativeParamsState = EmptyState  # Optax's name


@transformation
class keep_params_nonnegative(GradientTransformation):
    """Changes the steps that would make a parameter negative to end at 0. It goes after the learning rate.

        u = -p                  where p + u < 0
        u = u                   elsewhere

    A parameter that is negative before goes to 0 too, where its step leaves it negative.

    State: none. Reads: params.
    Raises:
      ValueError: no params.
      TypeError: a parameter is complex.
    """

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        def leaf(u, p):
            if jnp.iscomplexobj(p):
                raise TypeError(f"`keep_params_nonnegative`: a complex number has no sign; a parameter is {p.dtype}.")
            return jnp.where(p + u < 0, -p, u)

        return leafwise.map(leaf, updates, require_params(params, self)), state

"""Weight decay."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from gradtx import tree
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.value import number, static


@transformation
class add_decayed_weights(GradientTransformation):
    """Adds the parameters, times the decay, to the updates.

        u = g + weight_decay p

    Before an adaptive method it is L2 regularization, the gradient of weight_decay |p|^2 / 2; between an adaptive
    method and the learning rate it is decoupled decay, p <- p (1 - learning_rate weight_decay) - ..., as in AdamW.

    Args:
      weight_decay: not negative; per update, in units of updates per unit of parameter.
      mask: which leaves decay. A pytree of bools with the parameters' structure or a prefix of it; a function from the
        parameters' shapes (`jax.ShapeDtypeStruct`s) to such a tree, such as
        `lambda params: jax.tree.map(lambda p: p.ndim > 1, params)` for matrices only; or one or more regular
        expressions searched in a leaf's path ("encoder/0/kernel"), such as "kernel$". None: all leaves.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Complex parameters: their conjugate is added, since updates are still gradients here (`scale_by_learning_rate`).
    """

    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (decay,) = at(state.count, self.weight_decay)

        def leaf(g, p, decays):
            return decayed(g, p, decay) if decays else g

        updates = tree.map(leaf, updates, params, chosen(self.mask, params, self.name))
        return updates, ClockState(tick(state.count))


def decayed(g: Array, p: Array, decay: Any) -> Array:
    """g + decay p; of a complex p, its conjugate, since g is a gradient."""
    return g + decay * (jnp.conj(p) if jnp.iscomplexobj(p) else p)

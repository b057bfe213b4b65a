"""Weight decay, and its counterpart for sparse parameters: L1."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import EmptyState, GradientTransformation, require_params, transformation
from gradtx.geometry import agreement
from gradtx.value import flag, number, static

AddDecayedWeightsState = EmptyState  # Optax's name


@transformation
class add_decayed_weights(GradientTransformation):
    """Adds the parameters, times the decay, to the updates.

        u = g + weight_decay p

    Before an adaptive method it is L2 regularization, the gradient of weight_decay |p|^2 / 2; between an adaptive
    method and the learning rate it is decoupled decay, p <- p (1 - learning_rate weight_decay) - ..., as in AdamW. What
    another function of the rate multiplies stands after it: `decay_weights`.

    Args:
      weight_decay: not negative; per update, in units of updates per unit of parameter.
      mask: which leaves decay. A pytree of bools with the parameters' structure or a prefix of it; a function from the
        parameters' shapes (`jax.ShapeDtypeStruct`s) to such a tree, such as
        `lambda params: jax.tree.map(lambda p: p.ndim > 1, params)` for matrices only; or one or more regular
        expressions searched in a leaf's path ("encoder/0/kernel"), such as "kernel$". None: all leaves.
      cautious: only entries decay where g p >= 0, which the updates, turned around, do not make larger.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: cautious: Chen et al., Cautious weight decay, 2025 (arXiv:2510.12402). Of complex entries, it is the scalar
      product.
    Complex parameters: their conjugate is added, since updates are still gradients here (`scale_by_learning_rate`).
    """

    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    cautious: bool = flag(default=False, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (decay,) = at(state.count, self.weight_decay)

        def leaf(g, p, decays):
            if not decays:
                return g
            return decayed(g, p, jnp.where(agreement(g, p) >= 0, decay, 0) if self.cautious else decay)

        updates = leafwise.map(leaf, updates, params, chosen(self.mask, params, self.name))
        return updates, ClockState(tick(state.count))


def decayed(g: Array, p: Array, decay: Any) -> Array:
    """g + decay p; of a complex p, its conjugate, since g is a gradient."""
    return g + decay * (jnp.conj(p) if jnp.iscomplexobj(p) else p)


@transformation
class add_l1_subgradient(GradientTransformation):
    """Adds the parameters' signs, times the strength, to the updates.

        u = g + strength sign(p)                sign(0) = 0; of a complex p, conj(p) / |p|

    The subgradient of strength |p|_1. Parameters oscillate around 0: `proximal_l1` makes zeros.

    Args:
      strength: not negative; in units of updates.
      mask: which leaves; see `add_decayed_weights`.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Complex parameters: the conjugate is added, since updates are still gradients here (`scale_by_learning_rate`).
    """

    strength: Hyperparameter = number(within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (strength,) = at(state.count, self.strength)

        def leaf(g, p, is_sparse):
            return g + strength * jnp.conj(jnp.sign(p)) if is_sparse else g

        updates = leafwise.map(leaf, updates, params, chosen(self.mask, params, self.name))
        return updates, ClockState(tick(state.count))


@transformation
class proximal_l1(GradientTransformation):
    """Changes the steps so that they end at the soft threshold, which makes zeros. It goes after the learning rate.

        u' = soft(p + u, strength) - p,         soft(x, s) = max(|x| - s, 0) x / |x|

    With x = p + u: where |x| <= strength, u' is -p, so that `apply_updates` gives exactly 0; elsewhere
    u' = u - strength x / |x|. After `sgd` with a constant rate it is proximal gradient descent (ISTA), which minimizes
    loss + strength / rate |p|_1.

    Args:
      strength: not negative; in units of the parameters, per update: the learning rate times the weight of |p|_1, so
        with a schedule for the rate it is one too.
      mask: which leaves; see `add_decayed_weights`.

    State: the time. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: Daubechies, Defrise, De Mol, An iterative thresholding algorithm for linear inverse problems with a
      sparsity constraint, 2004; Beck, Teboulle, A fast iterative shrinkage-thresholding algorithm, 2009; Parikh, Boyd,
      Proximal algorithms, 2014, section 6.5.2. A complex x keeps its direction.
    """

    strength: Hyperparameter = number(within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        (strength,) = at(state.count, self.strength)

        def leaf(u, p, is_sparse):
            x = p + u
            return jnp.where(jnp.abs(x) > strength, u - strength * jnp.sign(x), -p) if is_sparse else u

        updates = leafwise.map(leaf, updates, params, chosen(self.mask, params, self.name))
        return updates, ClockState(tick(state.count))

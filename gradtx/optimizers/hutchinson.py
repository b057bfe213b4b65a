"""Hutchinson's estimator (1989) of the diagonal of a Hessian: one product with a vector of random signs."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import geometry, keys, leafwise
from gradtx.clock import ClockState, tick
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.partial import on_part
from gradtx.placement import differing_like, laid_like
from gradtx.value import part, state


@state
class HutchinsonState(NamedTuple):
    """Optax's state of `hutchinson_estimator_diag_hessian`, for programs that hold one. Here the key is no state."""

    key: Array  # the key of the next signs


def _checked(owner: str, name: str, key: Any) -> Any:
    return keys.checked(owner, name, 0 if key is None else key)


@transformation
class hutchinson_estimator_diag_hessian(GradientTransformation):
    """Replaces the updates by an unbiased estimate of the diagonal of the loss's Hessian at the parameters.

        u = z * (H z),    z = -1 or 1 in every entry, at random         H: second derivatives of `obj_fn`

        u, state = tx.update(grads, state, params, obj_fn=loss)

    Args:
      random_seed: an int, or a key of `jax.random`; None is 0. z is a function of it, the time and the leaf's place, so
        a run resumed from a checkpoint continues with the signs that it would have seen.

    The variance of an entry is the sum of the squares of the others in its row of H: 0 where H is diagonal. A complex
    parameter is a pair of reals, with signs each; its estimate, real, is the mean of the pair's.

    State: the time. Reads: params; `obj_fn=` or `value_fn=`, a function of the parameters that returns a scalar, or
      `grad_fn=`, one that returns its gradients. They are called with the parameters in float32 or wider. Where the
      updates hold None, the parameter is held fixed.
    Raises:
      ValueError: no such function, or no params.
    Source: Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing splines,
      1989; Bekas, Kokiopoulou, Saad, An estimator for the diagonal of a matrix, 2007.
    Differs from Optax: the key is a field, not state; `value_fn` and `grad_fn` will do.
    """

    random_seed: Any = part(default=0, convert=_checked)

    def update(self, updates, state, params=None, *, obj_fn=None, value_fn=None, grad_fn=None):
        params = require_params(params, self)
        value_fn = value_fn if obj_fn is None else obj_fn
        functions = on_part({"value_fn": value_fn, "grad_fn": None if obj_fn is not None else grad_fn}, params)
        moving = leafwise.choose(lambda g, p: p, updates, params)
        if any(p.size for p in jax.tree.leaves(moving)):
            slope = self.slope(**functions)
            signs = self.signs(moving, state.count)
            _, curvature = jax.jvp(slope, (moving,), (signs,))
            updates = leafwise.map(_diagonal, curvature, signs)
        else:
            updates = leafwise.zeros(moving, real=True)
        return updates, ClockState(tick(state.count))

    def signs(self, params: Any, count: Array) -> Any:
        """z, made like the parameters; it depends on the time and the leaf's place."""
        leaves, structure = jax.tree.flatten(params)
        key = jax.random.fold_in(keys.typed(self.random_seed), count)
        rows = [(jax.random.fold_in(key, place), p) for place, p in enumerate(leaves)]
        return structure.unflatten(leafwise.alike(_signs, rows))

    def slope(self, value_fn: Callable | None, grad_fn: Callable | None) -> Callable:
        """The function of the parameters that returns gradients."""
        if grad_fn is not None:
            return grad_fn
        if value_fn is None:
            raise ValueError(
                f"`{self.name}` reads the function that is minimized: call `update(updates, state, params, "
                "obj_fn=loss)`, where `loss(params)` is the scalar whose gradients the updates are."
            )
        return jax.grad(value_fn)


def _signs(key: Array, like: Array) -> Array:
    part = like.real if jnp.iscomplexobj(like) else like
    draw = lambda key: jax.random.rademacher(key, like.shape, part.dtype)
    signs = jax.lax.complex(*map(draw, jax.random.split(key))) if jnp.iscomplexobj(like) else draw(key)
    return laid_like(differing_like(signs, like), like)


def _diagonal(h: Array, z: Array) -> Array:
    return geometry.product(h, z) * 0.5 if jnp.iscomplexobj(z) else h * z

"""Grafting (Agarwal et al., 2020): the direction of one method, and the length of another's step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.collectives import Axis, as_axis, total
from gradtx.combine.record import listening, repeat
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, length, root, squares_summed
from gradtx.reductions import Asking, summed
from gradtx.value import part, state, static

LEAST = 1e-16  # added to the norm that divides
GRAFTS = ("sgd", "adagrad", "rmsprop", "rmsprop_normalized", "adam")


@state
class GraftState(NamedTuple):
    """State of `graft`."""

    norm_of: State  # each method's own
    direction_of: State


@transformation
class graft(GradientTransformation):
    """Steps in the direction of one method, each leaf's as long as that of another.

        u = d |n| / (|d| + 1e-16)           n from `norm_of`, d from `direction_of`, of the same gradient

    So the learning rates of one method serve another. A method grafted on itself is that method, but for a rounding of
    the ratio.

        graft(scale_by_adam(), scale_by_shampoo())

    Args:
      norm_of, direction_of: transformations, or foreign `(init, update)` pairs.
      axis: as in `clip_by_global_norm`.

    State: that of both. Reads: what they read.
    Source: Agarwal, Anil, Hazan, Koren, Zhang, Disentangling adaptive gradient methods from learning rates, 2020
      (arXiv:2002.11803), with a norm for each leaf.
    """

    norm_of: GradientTransformation = part(convert=as_transformation)
    direction_of: GradientTransformation = part(convert=as_transformation)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return GraftState(self.norm_of.bare_init(params), self.direction_of.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        n, norm_state = self.norm_of.bare_update(updates, state.norm_of, params, **extra)
        with listening() as said:
            d, direction_state = self.direction_of.bare_update(updates, state.direction_of, params, **extra)
        repeat([x for x in said if x.name != "learning_rate"])  # which the length that is taken does not have

        def leaf(d, n):
            return (yield from with_norm_of(d, n, axis=self.axis))

        return leafwise.map(leaf, d, n), GraftState(norm_state, direction_state)


def with_norm_of(d: Array, n: Array, over: Sequence[int] | None = None, *, axis: Axis = None) -> Asking[Array]:
    """Within a formula, `yield from`: d with the norm of n, over some axes, or all.

    As it is, where the ratio of the norms is not finite.
    """
    over = tuple(range(d.ndim)) if over is None else tuple(over)
    of_d, of_n = yield from summed((abs_sq(d), over), (abs_sq(n), over))
    ratio = length(total(of_n, axis)) / (length(total(of_d, axis)) + LEAST)
    return d * jnp.expand_dims(jnp.where(jnp.isfinite(ratio), ratio, 1), over)


def grafted(kind: str, f: Array, g: Array, nu: Array, b2: Any, eps: Any, count: Array) -> Asking[tuple[Array, Array]]:
    """Within a formula, `yield from`: the step of a method that divides, along a direction, and its next nu.

        nu = nu + |g|^2  or  b2 nu + (1 - b2) |g|^2,        n = f / (sqrt(nu) + eps)

    Args:
      kind: one of `GRAFTS`, not "sgd". "adam" divides nu by 1 - b2^count; "rmsprop_normalized" first divides f and g
        each by its norm.
      f: the direction, such as a mean of gradients.
    """
    if kind == "rmsprop_normalized":
        squares = yield from squares_summed((f, g))
        f, g = (jnp.where(square > 0, x / root(square), 0) for x, square in zip((f, g), squares, strict=True))
    nu = nu + abs_sq(g) if kind == "adagrad" else ema(nu, abs_sq(g), b2)
    scale = 1 / ema_mass(b2, count) if kind == "adam" else 1.0
    return f / (root(nu * scale) + eps), nu

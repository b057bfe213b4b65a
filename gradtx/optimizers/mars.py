"""MARS (Yuan et al., 2024): variance reduction in front of any method, by what the last step did to the gradient."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import root, shrinkage, squares_summed
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, state, static


@state
class ReduceVarianceState(NamedTuple):
    """State of `reduce_variance`."""

    count: Array  # int32 scalar: updates made so far
    last: Params  # the last gradient, float32 or wider; if `exact`, the last parameters, as they are stored


@transformation
class reduce_variance(GradientTransformation):
    """Adds to the gradient what it has changed by since the last update, and bounds each leaf's norm.

        c = g + gamma b1 / (1 - b1) (g - last g)               last g = g at the first update
        u = c / max(1, |c| / max_norm)                         |.| is the L2 norm of a leaf

    It goes in front of a method with the momentum b1, whose mean is then of gradients with less noise:

        chain(reduce_variance(), scale_by_adam(0.95, 0.99), add_decayed_weights(0.1), scale_by_learning_rate(3e-3))

    Variance reduction compares two gradients of the same batch. `exact`, the last g is that of this batch at the
    parameters before the last update, for which the gradient is computed once more, by `grad_fn` or `value_fn`:

        tx.update(grads, state, params, grad_fn=lambda p: jax.grad(loss)(p, batch))

    Otherwise it is the gradient of the batch before, and the difference has the noise of both.

    Args:
      gamma: how much of the difference: 1 is STORM's, 0 none. Not negative.
      b1: the momentum of the method that follows, in [0, 1).
      max_norm: in units of the gradient, positive; infinity bounds nothing.
      exact: see above.
      from_zero: take 0 for the last g at the first update, which is then 1 + gamma b1 / (1 - b1) times as long.
      axis: as in `clip_by_global_norm`.

    State: 4 bytes per float32 parameter. Reads: gradients; if `exact`, params and `grad_fn=` or `value_fn=`, functions
      of the parameters, which are called with the last ones in float32 or wider.
    Raises:
      ValueError: `exact`, and no such function, or no params.
    Source: Yuan, Liu, Wu, Zhou, Gu, MARS: unleashing the power of variance reduction for training large models, ICML
      2025, Algorithm 1 (arXiv:2411.10438), where the first two parameters are one point. The authors' code is
      `from_zero`. Of a leaf that holds NaN, the other entries become 0.
    """

    gamma: Hyperparameter = number(default=0.025, within="[0, inf)")
    b1: Hyperparameter = number(default=0.95, within="[0, 1)")
    max_norm: Hyperparameter = number(default=1.0, within="(0, inf]")
    exact: bool = flag(default=False, kw_only=True)
    from_zero: bool = flag(default=False, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return ReduceVarianceState(start(), geometry.copied(params) if self.exact else leafwise.zeros(params))

    def update(self, updates, state, params=None, *, value_fn=None, grad_fn=None):
        gamma, b1, max_norm = at(state.count, self.gamma, self.b1, self.max_norm)
        factor = gamma * b1 / (1 - b1)
        before, after = state.last, updates
        if self.exact:
            after = leafwise.choose(lambda g, p: p, updates, require_params(params, self))
            if any(p.size for p in jax.tree.leaves(after)):
                before = self.slope(value_fn, grad_fn)(leafwise.widen(state.last))

        def leaf(g, _, before, after):
            first = 0 if self.from_zero else g
            c = g + factor * (g - jnp.where(state.count == 0, first, before))
            if not (isinstance(max_norm, float) and max_norm == float("inf")):
                (square,) = yield from squares_summed((c,), axis=self.axis)
                c = c * shrinkage(root(square), max_norm)
            return c, jnp.copy(after)  # the caller's may be donated

        updates, last = leafwise.unzip_map(leaf, updates, state.last, before, after, outputs=2)
        return updates, ReduceVarianceState(tick(state.count), last)

    def slope(self, value_fn: Callable | None, grad_fn: Callable | None) -> Callable:
        """The function of the parameters that returns gradients."""
        if grad_fn is None and value_fn is None:
            raise ValueError(
                f"`{self.name}`: exact reads the gradient at the last parameters: call `update(updates, state, params, "
                "grad_fn=...)` with a function of the parameters that returns the gradients of the same batch."
            )
        return jax.grad(value_fn) if grad_fn is None else grad_fn  # pyright: ignore[reportArgumentType]


def mars(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.95,
    b2: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    gamma: Hyperparameter = 0.025,
    max_norm: Hyperparameter = 1.0,
    *,
    exact: bool = False,
    from_zero: bool = False,
    axis: Axis = None,
) -> GradientTransformation:
    """MARS-AdamW: `adamw` of gradients with less variance. Other arguments: `reduce_variance`.

        p <- p (1 - learning_rate weight_decay) - learning_rate adam(c)

    The other methods of the family have the same link in front:

    | method | chain |
    |---|---|
    | MARS-Lion | `reduce_variance()`, `ema(0.95, debias=False)`, `scale_by_sign()` |
    | MARS-Shampoo | `reduce_variance()`, `ema(0.95, debias=False)`, `orthogonalize()`, `scale_by_shape()` |
    | MARS-M | the same, with `scale_by_shape(consistent_rms=0.2)` (arXiv:2510.21800) |

    The authors' code is for matrices: `matrices_and_others(mars(3e-3), adamw(3e-3, 0.9, 0.95, weight_decay=0.1))`.

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      b1, b2, eps: as in `scale_by_adam`; b1 is the correction's, too.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    State: 12 bytes per float32 parameter. Reads: params.
    """
    return chain(
        reduce_variance(gamma, b1, max_norm, exact=exact, from_zero=from_zero, axis=axis),
        scale_by_adam(b1, b2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

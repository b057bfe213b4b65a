"""GSAM (Zhuang et al., 2022): SAM's gradient, less of it along what would raise the loss nearby again."""

from typing import Any

import jax.numpy as jnp

from gradtx import geometry, leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis, totals
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.optimizers.sam import sam
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.normalize import normalize_by_update_norm
from gradtx.transforms.normalize_adaptive import normalize_adaptive
from gradtx.value import number, static


@transformation
class minus_surrogate_gap(GradientTransformation):
    """Within `sam`, takes from the gradient uphill what the gradient at home has across it.

        u = h - alpha (g - <g, h> / |h|^2 h)            g at home, h uphill; products are over all leaves

    To second order, the difference of the losses uphill and at home falls along it, and the loss uphill as along h. It
    stands first in the optimizer of a `sam` with `opaque_mode`, which tells it g. A leaf with NaN is left out of the
    products.

    Args:
      alpha: any finite number; about 0.1 to 0.6. 0 is SAM.
      axis: as in `clip_by_global_norm`.

    State: the time. Reads: gradients at home and uphill; `grad_at_home=`, which `sam` gives.
    Raises:
      ValueError: no `grad_at_home`.
    Source: Zhuang, Gong, Yuan, Cui, Adam, Dvornek, Tatikonda, Duncan, Liu, Surrogate gap minimization improves
      sharpness-aware training, ICLR 2022, Algorithm 1 (arXiv:2203.08065).
    """

    alpha: Hyperparameter = number(default=0.4)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def update(self, updates, state, params=None, *, grad_at_home=None, **extra):
        (alpha,) = at(state.count, self.alpha)
        if grad_at_home is None:
            raise ValueError(
                f"`{self.name}` reads the gradient at home: put it first in the optimizer of a `sam` with "
                "opaque_mode=True."
            )
        products = geometry.sums(lambda h, g: geometry.product(g, jnp.conj(h)), updates, grad_at_home)
        found = totals(products + leafwise.squares(updates), self.axis)
        along, square = (geometry.total(x) for x in (found[: len(products)], found[len(products) :]))
        part = geometry.ratio(along, square)
        updates = leafwise.map(lambda h, g: h - alpha * (g - part.astype(h.real.dtype) * h), updates, grad_at_home)
        return updates, ClockState(tick(state.count))


def gsam(
    optimizer: GradientTransformation,
    rho: Hyperparameter = 0.05,
    alpha: Hyperparameter = 0.4,
    *,
    adaptive: bool = False,
    eps: Hyperparameter = 1e-12,
    sync_period: int = 2,
    batch_axis_name: Any = None,
    axis: Axis = None,
) -> GradientTransformation:
    """Steps down with SAM's gradient, less `alpha` times what the gradient at home has across it. Other arguments:
    `sam`, `minus_surrogate_gap`.

        q = p + rho g / (|g| + eps),     h = g(q)
        u = step of `optimizer` at (h - alpha (g - <g, h> / |h|^2 h), p)

    It makes the whole walk in one update, as `sam` with `opaque_mode`: `update(grads, state, params, grad_fn=...)`.

    Args:
      optimizer: steps down.
      rho: the length of the step uphill. The authors' follows the rate, rho_min + (rho_max - rho_min)
        (rate - rate_min) / (rate_max - rate_min): a schedule, read at the number of steps uphill.
      adaptive: T^2 g / |T g| with T = |p| in the place of g / |g|: `normalize_adaptive`.
      eps: in units of the gradient. Not negative.

    State: that of `sam` with `opaque_mode`. Reads: what that reads.
    Source: Zhuang et al., 2022 (arXiv:2203.08065), Algorithm 1, and the authors' code.
    """
    direction = normalize_adaptive(0.0, eps, axis=axis) if adaptive else normalize_by_update_norm(1.0, eps, axis=axis)
    down = chain(minus_surrogate_gap(alpha, axis=axis), as_transformation("gsam", "optimizer", optimizer))
    return sam(down, chain(direction, sgd(rho)), sync_period, False, True, batch_axis_name)

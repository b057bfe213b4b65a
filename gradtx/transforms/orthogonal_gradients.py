"""OrthoGrad (Prieto et al., 2025): gradients without the part that only makes the weights longer or shorter."""

from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.collectives import Axis, as_axis, total
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import EmptyState, GradientTransformation, require_params, transformation
from gradtx.geometry import product, ratio
from gradtx.moments import abs_sq, length, whole_size
from gradtx.reductions import summed
from gradtx.value import flag, static

NOISE = 16  # roundings of the gradient's norm that a difference of two vectors is not measured below


@transformation
class orthogonal_gradients(GradientTransformation):
    """Takes from each leaf's gradient its part along the parameters, and gives it its length back.

        r = g - (<p, g> / <p, p>) p                     g where p is 0
        u = r |g| / |r|                                 <., .> and |.| over a whole leaf

    For models that do not depend on the length of their weights, or that grow it to be sure of what they know. It
    stands first in a chain.

    A leaf of one entry has no direction but its own and passes as it is. Where r is nothing but rounding, u is 0.

    Args:
      rescale: False leaves u = r.
      mask: which leaves; see `add_decayed_weights`.
      axis: as in `clip_by_global_norm`.

    State: none. Reads: params.
    Raises:
      ValueError: no params; a pattern that matches no leaf; a mask that lacks a leaf.
    Source: Prieto, Barsbey, Mediano, Birdal, Grokking at the edge of numerical stability, ICLR 2025
      (arXiv:2501.04697). Its code adds 1e-30 to what divides, and scales rounding up to |g|, of a leaf of one entry
      nothing else. Of a complex leaf the scalar product is that of pairs of reals.
    """

    rescale: bool = flag(default=True, kw_only=True)
    mask: Any = static(default=None, convert=as_mask, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)

        def leaf(g, p, is_chosen):
            if not is_chosen or whole_size(g, self.axis) < 2:
                return g
            over = lambda *xs: [total(x, self.axis) for x in xs]
            along, p_square, g_square = over(*(yield from summed((product(g, p), None), *_squares(p, g))))
            r = g - ratio(along, p_square) * jnp.conj(p)
            (r_square,) = over(*(yield from summed(*_squares(r))))
            is_noise = length(r_square) <= NOISE * jnp.finfo(g.dtype).eps * length(g_square)
            factor = ratio(length(g_square), length(r_square)) if self.rescale else 1.0
            return r * jnp.where(is_noise, 0.0, factor)

        return leafwise.map(leaf, updates, params, chosen(self.mask, params, self.name)), state


def _squares(*xs: Any) -> list:
    return [(abs_sq(x), None) for x in xs]

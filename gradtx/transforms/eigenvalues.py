"""Steps divided by the roots of eigenvalues: Shampoo's, in the eigenbasis."""

from typing import Any

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import root
from gradtx.value import number


@transformation
class scale_by_eigenvalues(GradientTransformation):
    """Divides by the root of the eigenvalues of the gradient's second moments. Within `in_eigenbasis` alone.

        u = g / (root(l_1 l_2 ...) + eps)           l_k: the eigenvalue of side k that the entry belongs to

    In the basis that is the product with the inverse root of the Kronecker product of all sides' second moments. What
    has no eigenvalues (vectors) passes.

    Args:
      eps: in units of the gradient; not negative.

    State: the time. Reads: the extra argument `eigenvalues`, from `in_eigenbasis` where its `statistics` is "kl".
    Raises:
      ValueError: it is not given.
    Source: Lin et al., 2025 (arXiv:2509.03378).
    """

    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def update(self, updates, state, params=None, *, eigenvalues: Any = None):
        if eigenvalues is None:
            raise ValueError(
                '`scale_by_eigenvalues` needs eigenvalues: put it in `in_eigenbasis`, with `statistics="kl"`.'
            )
        (eps,) = at(state.count, self.eps)

        def leaf(g, value):
            return g if value is None else g / (root(value).astype(g.real.dtype) + eps)

        return leafwise.map(leaf, updates, eigenvalues()), ClockState(tick(state.count))

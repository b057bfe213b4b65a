"""CAME (Luo et al., 2023): Adafactor with momentum, which is divided by its distance from what it averages."""

from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.factored import PAIRS, factored_dims, over_factored_root, zero_means
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, rms, root, shrinkage
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import number, state, static, storage_dtype, whole


@state
class ScaleByCameState(NamedTuple):
    """State of `scale_by_came`. The means that a leaf does not use are None."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of the bounded updates, stored as `mu_dtype`
    v_row: Params  # running mean of |g|^2 over the columns
    v_col: Params  # running mean of |g|^2 over the rows
    v: Squares  # running mean of |g|^2 where a leaf is not factored
    s_row: Params  # running mean of |u - mu|^2 over the columns
    s_col: Params  # running mean of |u - mu|^2 over the rows


@transformation
class scale_by_came(GradientTransformation):
    """Divides the mean of Adafactor's updates by the root of their mean square distance from it.

        v = b2 v + (1 - b2) (|g|^2 + eps1),              kept as its row and column means: `scale_by_factored_rms`
        u = g / sqrt(v);   u = u / max(1, rms(u) / clipping_threshold)
        mu = b1 mu + (1 - b1) u                          from zero
        s = b3 s + (1 - b3) (|u - mu|^2 + eps2),         kept likewise
        u = mu / sqrt(s)

    A leaf that is not factored, such as a vector, keeps v itself and no s: u = mu. No bias is corrected.

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of v, in [0, 1).
      b3: decay of s, in [0, 1); the closer to 1, the steadier.
      eps1: added to |g|^2, in squared units of the gradient. Not negative.
      eps2: added to |u - mu|^2, which has no unit. Not negative.
      clipping_threshold: bound on each leaf's root mean square of u; at least 0, infinity for none.
      min_dim_size_to_factor: leaves are factored whose two dimensions have at least that many entries.
      factored_dims: which two: the "last", or the "largest" as of `scale_by_factored_rms`.
      mu_dtype: storage of mu; None means float32 or wider.

    State: 4 + 8 (1/rows + 1/columns) bytes per float32 parameter of a factored leaf, 8 of another. Reads: gradients
      only; u and u - mu once more, for their means.
    Source: Luo et al., CAME: Confidence-guided adaptive memory efficient optimization, ACL 2023, Algorithm 2
      (arXiv:2307.02047), which is of matrices; vectors and leaves of more dimensions are as in the authors' code.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    b3: Hyperparameter = number(default=0.9999, within="[0, 1)")
    eps1: Hyperparameter = number(default=1e-30, within="[0, inf)")
    eps2: Hyperparameter = number(default=1e-16, within="[0, inf)")
    clipping_threshold: Hyperparameter = number(default=1.0, within="[0, inf]")
    min_dim_size_to_factor: int = whole(default=1, within="[1, inf)")
    factored_dims: str = static(default="last", one_of=PAIRS, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        def leaf(p):
            square, dims = leafwise.zeros(p, real=True), self._dims(p)
            means = (None, None) if dims is None else zero_means(square, dims)
            again = (None, None) if dims is None else zero_means(square, dims)  # a buffer may be donated once
            return *means, square if dims is None else None, *again

        return ScaleByCameState(
            start(), leafwise.zeros(params, self.mu_dtype), *leafwise.unzip_map(leaf, params, outputs=5)
        )

    def update(self, updates, state, params=None, **extra):
        b1, b2, b3, eps1, eps2, bound = at(
            state.count, self.b1, self.b2, self.b3, self.eps1, self.eps2, self.clipping_threshold
        )

        def leaf(g, mu, v_row, v_col, v, s_row, s_col):
            dims = self._dims(g)
            if dims is None:
                v = ema(v, abs_sq(g) + eps1, b2)
                u = g / root(v)
            else:
                u, v_row, v_col = yield from over_factored_root(g, v_row, v_col, dims, b2, eps1)
            u = u * shrinkage((yield from rms(u)), bound)
            mu = ema(mu, u, b1)
            if dims is None:
                return mu, mu, v_row, v_col, v, s_row, s_col
            u, s_row, s_col = yield from over_factored_root(u - mu, s_row, s_col, dims, b3, eps2, of=mu)
            return u, mu, v_row, v_col, v, s_row, s_col

        updates, *slots = leafwise.unzip_map(leaf, updates, *state[1:], outputs=7)
        return updates, ScaleByCameState(tick(state.count), *slots)

    def _dims(self, p: Any) -> tuple[int, int] | None:
        return factored_dims(p.shape, self.min_dim_size_to_factor, self.factored_dims)


def came(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    b3: Hyperparameter = 0.9999,
    eps1: Hyperparameter = 1e-30,
    eps2: Hyperparameter = 1e-16,
    clipping_threshold: Hyperparameter = 1.0,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    min_dim_size_to_factor: int = 1,
    factored_dims: str = "last",
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """CAME: half of Adam's memory, and small steps where updates are unsteady. Other arguments: `scale_by_came`.

        p <- p (1 - learning_rate weight_decay) - learning_rate mu / sqrt(s)

    Args:
      learning_rate: in units of the parameters; 2e-4 in the source.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Luo et al., CAME, ACL 2023 (arXiv:2307.02047).
    """
    return chain(
        scale_by_came(
            b1, b2, b3, eps1, eps2, clipping_threshold, min_dim_size_to_factor,
            factored_dims=factored_dims, mu_dtype=mu_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip

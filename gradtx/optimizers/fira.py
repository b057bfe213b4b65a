"""Fira (Chen et al., 2025): GaLore, and what its projection leaves out, scaled as what it keeps."""

from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.combine.low_rank import ONE_SIDE, low_rank, projected_back, ratio
from gradtx.core import GradientTransformation, Params, State, transformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.galore import base_or_adam
from gradtx.transforms.bias import scale_by_bias_correction
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.growth import EPS, limited
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, part, state, static


@state
class FiraState(NamedTuple):
    """State of `scale_by_fira`."""

    count: Array  # int32 scalar: updates made so far
    base_optimizer_state: State  # the base optimizer's own, of the projected gradients
    projector: Params  # P of each matrix; None for what is no matrix, and where P is not stored
    norm: Params  # |S| of each matrix, as it was added; None without a limit


@transformation
class scale_by_fira(low_rank):
    """Lets another transformation work on a low-rank projection of each matrix's gradient, and scales the rest like it.

        R = P^T g,    N = base(R)                                 P as in `scale_by_galore`; or R = g P
        S = (g - scale P R) |N| / (|R| + 1e-8)
        S = S min(1, norm_growth (|S before| + 1e-8) / |S|)       `limit_norm_growth`
        u = scale P N + S

    Args:
      rank, update_proj_gap, base_optimizer, weight_dimension_numbers, projection, key, projector_dtype: as in
        `scale_by_galore`.
      scale: what the projected updates are multiplied by, and, as in the authors' code, what is projected of g. At 1,
        where the paper has it, S has nothing of P's space.
      side: of which side P is: the "shorter", the "longer", the "rows" or the "columns"; see `scale_by_galore`.
      scale_type: |N| / |R| of each "channel", an index of the other side, or of the whole matrix, the "tensor".
      norm_growth: how much |S| may grow from one update to the next, at least 1; None or infinity: without limit.

    What is no matrix is the base optimizer's as it is.

    State: as of `scale_by_galore`, and 4 bytes per matrix. Reads: gradients only; S once more, for its norm.
    Derivative: P counts as given.
    Source: Chen et al., Fira, NeurIPS 2025, section 4 (arXiv:2410.01623). As in the authors' code |N| / |R| is of
      channels, and the limit is of S alone. An S of 0 limits nothing after it, where theirs limits it to 1e-8.
    """

    base_optimizer: GradientTransformation = part(default=None, convert=base_or_adam)
    side: str = static(default="shorter", one_of=ONE_SIDE, kw_only=True)
    scale_type: str = static(default="channel", one_of=("channel", "tensor"), kw_only=True)
    norm_growth: Hyperparameter | None = number(default=1.01, within="[1, inf]", optional=True, kw_only=True)

    def init(self, params):
        return FiraState(*self.begin(params), norm=None if self.norm_growth is None else self.norms(params))

    def update(self, updates, state, params=None, **extra):
        (scale,) = at(state.count, self.scale)
        (growth,) = (None,) if self.norm_growth is None else at(state.count, self.norm_growth)

        def leaf(g, r, n, p, norm):
            rest = (g - scale * projected_back(r, p)) * (yield from ratio(n, r, p, self.scale_type))
            if growth is not None:
                rest, norm = yield from limited(rest, norm, growth, EPS, (1, 2))
            return scale * projected_back(n, p) + rest, norm

        updates, *new = self.step(leaf, updates, state, extra, state.norm)
        return updates, FiraState(tick(state.count), *new)


def fira(
    learning_rate: Hyperparameter,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparameter = 1.0,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    *,
    bias_correction: bool = True,
    side: str = "shorter",
    scale_type: str = "channel",
    norm_growth: Hyperparameter | None = 1.01,
    projection: Any = "svd",
    key: Any = 0,
    mu_dtype: DTypeLike | None = None,
    projector_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """AdamW of full rank whose moments are of low rank. Other arguments: `scale_by_fira`, `scale_by_adam`.

        p <- p (1 - learning_rate weight_decay) - learning_rate c u,     c = sqrt(1 - b2^t) / (1 - b1^t)

    As in the authors' code the base optimizer is Adam without bias correction, which comes after the limit, for all
    parameters: `scale_by_bias_correction`. So eps is beside the uncorrected root.

    Args:
      learning_rate: in units of the parameters, as Adam's.
      bias_correction: False makes c 1.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. The authors'
        code decays what has stepped already, which is a step smaller by the factor 1 - learning_rate weight_decay.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Chen et al., Fira, NeurIPS 2025 (arXiv:2410.01623).
    """
    adam = scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype, bias_correction=False)
    method = scale_by_fira(
        rank, update_proj_gap, scale, adam, weight_dimension_numbers,
        side=side, scale_type=scale_type, norm_growth=norm_growth,
        projection=projection, key=key, projector_dtype=projector_dtype,
    )  # fmt: skip
    return chain(
        method,
        *[scale_by_bias_correction(b1, b2)] * bias_correction,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

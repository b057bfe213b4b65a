"""APOLLO (Zhu et al., 2025): each channel of the gradient scaled as a random projection of it would be by Adam."""

from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter, arrays_at, at, tick
from gradtx.combine.chain import chain
from gradtx.combine.low_rank import ONE_SIDE, as_projection, low_rank, ratio
from gradtx.core import GradientTransformation, Params, State, transformation
from gradtx.moments import length
from gradtx.optimizers.adam import scale_by_adam
from gradtx.optimizers.galore import base_or_adam
from gradtx.transforms.bias import scale_by_bias_correction
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.growth import EPS, limited
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, part, state, static


@state
class ApolloState(NamedTuple):
    """State of `scale_by_apollo`."""

    count: Array  # int32 scalar: updates made so far
    base_optimizer_state: State  # the base optimizer's own, of the projected gradients
    projector: Params  # P of each matrix where it is of singular vectors, else None
    norm: Params  # |u| of each matrix, as it was limited; None without a limit


@transformation
class scale_by_apollo(low_rank):
    """Scales each channel of the gradient as another transformation scales a low-rank projection of it.

        R = P^T g,    N = base(R)                                P ~ N(0, 1 / rank), a function of key, time and place
        u = g |N| / (|R| + 1e-8)                                 of each column of g, if P is of the rows
        u = u min(1, norm_growth (|u before| + 1e-8) / |u|)      `limit_norm_growth`
        u = sqrt(scale) u                                        before the line above with `scale_front`

    P is drawn anew at every `update_proj_gap`-th update, and made again from its key at every other: it is not stored,
    nor decomposed. A run resumed from a checkpoint continues with the P that it would have seen.

    Args:
      rank: at least 1; a fourth of the shorter side is the source's, 1 for `apollo_mini`.
      update_proj_gap, base_optimizer, weight_dimension_numbers, key, projector_dtype: as in `scale_by_galore`.
      scale: not negative; the step is multiplied by its root.
      side: of which side P is: the "shorter", the "longer", the "rows" or the "columns"; see `scale_by_galore`.
      scale_type: |N| / |R| of each "channel", an index of the other side, or of the whole matrix, the "tensor".
      scale_front: whether the root of scale comes before the limit; that differs in the 1e-8 alone.
      norm_growth: how much |u| may grow from one update to the next, at least 1; None or infinity: without limit.
      projection: "random"; "svd", singular vectors, which are stored; or a function, as in `scale_by_galore`.

    What is no matrix is the base optimizer's as it is.

    State: the base optimizer's, of rank times the longer side's numbers, and 4 bytes per matrix. Reads: gradients only;
      they once more, for the norm.
    Source: Zhu et al., APOLLO: SGD-like memory, AdamW-level performance, MLSys 2025, Algorithm 1 (arXiv:2412.05270). A
      u of 0 limits nothing after it, where the authors' code limits it to 1e-8.
    """

    base_optimizer: GradientTransformation = part(default=None, convert=base_or_adam)
    scale: Hyperparameter = number(default=1.0, within="[0, inf)")
    side: str = static(default="shorter", one_of=ONE_SIDE, kw_only=True)
    projection: Any = static(default="random", convert=as_projection, kw_only=True)
    scale_type: str = static(default="channel", one_of=("channel", "tensor"), kw_only=True)
    scale_front: bool = flag(default=False, kw_only=True)
    norm_growth: Hyperparameter | None = number(default=1.01, within="[1, inf]", optional=True, kw_only=True)

    def init(self, params):
        return ApolloState(*self.begin(params), norm=None if self.norm_growth is None else self.norms(params))

    def update(self, updates, state, params=None, **extra):
        scale = length(*arrays_at(state.count, self.scale))
        before, after = (scale, 1) if self.scale_front else (1, scale)
        (growth,) = (None,) if self.norm_growth is None else at(state.count, self.norm_growth)

        def leaf(g, r, n, p, norm):
            u = g * (before * (yield from ratio(n, r, p, self.scale_type)))
            if growth is not None:
                u, norm = yield from limited(u, norm, growth, EPS, (1, 2))
            return u * after, norm

        updates, *new = self.step(leaf, updates, state, extra, state.norm)
        return updates, ApolloState(tick(state.count), *new)


def apollo(
    learning_rate: Hyperparameter,
    rank: int = 256,
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
    scale_front: bool = False,
    norm_growth: Hyperparameter | None = 1.01,
    projection: Any = "random",
    key: Any = 0,
    mu_dtype: DTypeLike | None = None,
    projector_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """AdamW's step sizes from a random projection of the gradient. Other arguments: `scale_by_apollo`, `scale_by_adam`.

        p <- p (1 - learning_rate weight_decay) - learning_rate c u,     c = sqrt(1 - b2^t) / (1 - b1^t)

    As in the authors' code the base optimizer is Adam without bias correction, which comes after the limit, for all
    parameters: `scale_by_bias_correction`. So eps is beside the uncorrected root.

    Args:
      learning_rate: in units of the parameters, as Adam's; 0.01 in the source.
      bias_correction: False makes c 1.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. The authors'
        code decays what has stepped already, which is a step smaller by the factor 1 - learning_rate weight_decay.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Zhu et al., APOLLO, MLSys 2025 (arXiv:2412.05270).
    """
    adam = scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype, bias_correction=False)
    method = scale_by_apollo(
        rank, update_proj_gap, scale, adam, weight_dimension_numbers,
        side=side, scale_type=scale_type, scale_front=scale_front, norm_growth=norm_growth,
        projection=projection, key=key, projector_dtype=projector_dtype,
    )  # fmt: skip
    return chain(
        method,
        *[scale_by_bias_correction(b1, b2)] * bias_correction,
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )


def apollo_mini(learning_rate: Hyperparameter, scale: Hyperparameter = 128.0, **options: Any) -> GradientTransformation:
    """`apollo` with one random direction and one number for each matrix: almost the memory of SGD.

    It is `apollo(learning_rate, rank=1, scale=scale, scale_type="tensor", **options)`.

    State: 8 bytes for each index of a matrix's longer side. Reads: params.
    Source: Zhu et al., APOLLO, MLSys 2025 (arXiv:2412.05270).
    """
    return apollo(learning_rate, 1, scale=scale, scale_type="tensor", **options)

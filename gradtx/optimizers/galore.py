"""GaLore (Zhao et al., 2024): moments of a low-rank projection of each matrix's gradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.combine.low_rank import SIDES, low_rank, projected_back
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.optimizers.adam import scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import part, state, static


@state
class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the rows and the columns of its matrix; those not named hold several matrices."""

    reduction_axis: int | Sequence[int] = 0  # the rows: the input of x W
    output_axis: int | Sequence[int] = 1  # the columns: its output


@state
class GaLoreState(NamedTuple):
    """State of `scale_by_galore`."""

    count: Array  # int32 scalar: updates made so far
    base_optimizer_state: State  # the base optimizer's own, of the projected gradients
    projector: Params  # P of each matrix, of both sides a pair; None for what is no matrix, and where P is not stored


def base_or_adam(owner: str, name: str, tx: Any) -> GradientTransformation:
    """The base optimizer: a transformation, or None for `scale_by_adam()`."""
    return scale_by_adam() if tx is None else as_transformation(owner, name, tx)


@transformation
class scale_by_galore(low_rank):
    """Lets another transformation work on a low-rank projection of each matrix's gradient, and projects back.

        P = the `rank` first singular vectors of g, on one side           at every `update_proj_gap`-th update
        of the rows:     P is m x rank,   R = P^T g,    u = scale P base(R)
        of the columns:  P is n x rank,   R = g P,      u = scale base(R) P^T

    So the base optimizer's moments are of `rank` times the other side's entries. They are not turned when P changes.

    Args:
      rank: at least 1; that of a smaller matrix is its shorter side.
      update_proj_gap: after how many updates P is computed anew, at least 1. That is a singular value decomposition of
        each matrix. It is also computed when a matrix that had no gradient then gets its first.
      scale: what the projected updates are multiplied by.
      base_optimizer: a transformation of gradients, or a foreign `(init, update)` pair; None, `scale_by_adam()`. It is
        given no parameters, which have other shapes: weight decay has its place in `galore`.
      weight_dimension_numbers: which axes are rows and columns. None: parameters of two dimensions are matrices, and
        others are the base optimizer's as they are. Or `GaLoreDimensionNumbers` for all that have two dimensions or
        more, a pytree of them and of None, or a function from the parameters' shapes to one.
      side: of which side P is: the "longer", as in Optax, which makes the moments small and P large; the "shorter", as
        in the paper, the other way around; the "rows", the "columns", or "both": R = P^T g Q is rank x rank. The rows
        of a square matrix count as its longer side.
      projection: "svd", as above. "random": entries from a normal distribution of variance 1 / rank, a function of key,
        time and place, so that P is not stored. Or a function (key, shape, dtype) -> P, such as
        `jax.nn.initializers.orthogonal()`; if it names them, it is given the leaf's `name`, and in `refresh` how often
        P was drawn before.
      key: an int, or a key of `jax.random`; for a P that is drawn.
      projector_dtype: storage of P; None means float32 or wider.

    State: per m x n matrix rank times the numbers of P's side, and the base optimizer's state of rank times the other
      side's. Reads: gradients only.
    Derivative: P counts as given, since singular vectors have none where singular values are equal. Their signs are the
      decomposition's; after a new P they decide how the old moments go on.
    Source: Zhao et al., GaLore, ICML 2024, Algorithm 1 (arXiv:2403.03507), with side "shorter"; "both" is in the
      authors' code.
    Differs from Optax: P is None for what is no matrix, computed in float32 or wider, and right for complex gradients;
      axes that are neither rows nor columns hold several matrices; the base optimizer is given extra arguments, and may
      be scheduled.
    """

    base_optimizer: GradientTransformation = part(default=None, convert=base_or_adam)
    side: str = static(default="longer", one_of=SIDES, kw_only=True)

    def init(self, params):
        return GaLoreState(*self.begin(params))

    def update(self, updates, state, params=None, **extra):
        (scale,) = at(state.count, self.scale)
        leaf = lambda g, r, n, p, _: (scale * projected_back(n, p), None)
        updates, base, projector, _ = self.step(leaf, updates, state, extra)
        return updates, GaLoreState(tick(state.count), base, projector)


def galore(
    learning_rate: Hyperparameter,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparameter = 1.0,
    base_optimizer: Any = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    *,
    side: str = "longer",
    projection: Any = "svd",
    key: Any = 0,
    projector_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """AdamW with low-rank moments for matrices. Other arguments: `scale_by_galore`. The paper's has side "shorter".

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters, as Adam's.
      scale: the source's alpha, 0.25 there.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Zhao et al., GaLore, ICML 2024 (arXiv:2403.03507).
    """
    return chain(
        scale_by_galore(
            rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers,
            side=side, projection=projection, key=key, projector_dtype=projector_dtype,
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip

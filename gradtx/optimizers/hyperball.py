"""Hyperball (2026): matrices on a sphere of the radius at which they start, turned by the learning rate."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_norm import keep_norm, normalize_matrices


def hyperball(
    direction: GradientTransformation,
    learning_rate: Hyperparameter,
    radius: Hyperparameter | None = None,
    *,
    eps: Hyperparameter = 1e-15,
    weight_dimension_numbers: Any = None,
) -> GradientTransformation:
    """Turns each matrix towards a method's direction, and keeps its norm.

        W <- R N(W - learning_rate R N(u))          N(x) = x / |x|, Frobenius norm;  R = |W| at the start

        hyperball(scale_by_muon(), 0.018)           # MuonH
        hyperball(scale_by_adam(), 0.018)           # AdamH

    It is for matrices, and for those that need not grow: vectors, embeddings and the output layer are another method's.

        partition({"matrix": hyperball(scale_by_muon(), schedule), "rest": adamw(3e-4)}, labels)

    Weight decay does nothing to first order here; `chain(direction, add_decayed_weights(0.1))` would turn W by it.

    Args:
      direction: a transformation without a learning rate, whose length does not matter.
      learning_rate: about the angle of a step, in radians, of a direction orthogonal to W. Not a step's length.
      radius: R of all matrices; None, each one's own. A weight that starts at zero needs it. See `keep_norm`.
      eps: directions that are shorter are 0; positive. See `normalize_matrices`.
      weight_dimension_numbers: which axes are rows and columns; None: the last two, of several matrices if there are
        others. See `normalize_matrices`.

    State: 4 bytes per matrix, and the direction's. Reads: params, and what the direction reads.
    Raises:
      ValueError: a matrix is zero at `init`, and there is no `radius`.
    Source: Hyperball, 2026 (arXiv:2606.16899).
    Differs from NVIDIA's `MuonHyperball`: R is the norm at the start, and not at the last step, which drifts where
      weights are stored in bfloat16 (`keep_norm`); a radius that is given is reached by the first step.
    """
    numbers = weight_dimension_numbers
    return chain(
        direction,
        normalize_matrices(eps, weight_dimension_numbers=numbers),
        scale_by_learning_rate(learning_rate),
        keep_norm(radius, relative=True, weight_dimension_numbers=numbers),
    )

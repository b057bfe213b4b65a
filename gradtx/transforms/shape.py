"""Steps of a size that fits the shape of a matrix."""

import math
from typing import Any

import jax

from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.dimensions import all_matrices, as_dimension_numbers
from gradtx.core import GradientTransformation, transformation
from gradtx.value import number, static


@transformation
class scale_by_shape(GradientTransformation):
    """Scales each matrix by its shape, so that one learning rate fits matrices of every width.

        u = g sqrt(max(1, columns / rows))
        u = g sqrt(max(rows, columns)) consistent_rms       with consistent_rms

    Args:
      weight_dimension_numbers: which axes are rows and columns; see `scale_by_muon`.
      consistent_rms: the root mean square that an orthogonal matrix then has, whatever its shape. 0.2 is about that of
        Adam's steps, so that Adam's learning rate and decay fit. Not negative.

    State: the time. Reads: updates only.
    Source: Jordan et al., Muon, 2024; Liu et al., Muon is scalable for LLM training, 2025, section 2.2
      (arXiv:2502.16982).
    """

    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)
    consistent_rms: Hyperparameter | None = number(default=None, within="[0, inf)", optional=True)

    def update(self, updates, state, params=None, **extra):
        (rms,) = (None,) if self.consistent_rms is None else at(state.count, self.consistent_rms)

        def leaf(g, axes):
            _, rows, columns = axes.sizes(g.shape)
            if rms is None:
                return g * math.sqrt(max(1, columns / max(rows, 1)))
            return g * (math.sqrt(max(rows, columns)) * rms)

        leaves, structure = jax.tree.flatten(updates)
        axes = all_matrices(self.weight_dimension_numbers, updates, self.name)
        scaled = [leaf(g, a) for g, a in zip(leaves, axes, strict=True)]
        return structure.unflatten(scaled), ClockState(tick(state.count))

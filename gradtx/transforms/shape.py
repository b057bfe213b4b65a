"""Steps of a size that fits the shape of a matrix."""

import math
from typing import Any

import jax

from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.dimensions import as_dimension_numbers, divided
from gradtx.core import GradientTransformation, transformation
from gradtx.value import number, static

RULES = {
    "at_least_one": lambda rows, columns: math.sqrt(max(1, columns / max(rows, 1))),
    "spectral": lambda rows, columns: math.sqrt(columns / max(rows, 1)),
}


def _rule(owner: str, name: str, x: Any) -> Any:
    if not callable(x) and x not in RULES:
        raise ValueError(f"`{owner}`: {name} must be a function, or one of {tuple(RULES)}, got {x!r}.")
    return x


@transformation
class scale_by_shape(GradientTransformation):
    """Scales each matrix by its shape, so that one learning rate fits matrices of every width.

        u = g sqrt(max(1, columns / rows))
        u = g sqrt(columns / rows)                          with rule="spectral"
        u = g sqrt(max(rows, columns)) consistent_rms       with consistent_rms

    Rows are the inputs of x W and columns its outputs.

    Args:
      weight_dimension_numbers: which axes are rows and columns; see `scale_by_muon`.
      consistent_rms: the root mean square that an orthogonal matrix then has, whatever its shape. 0.2 is about that of
        Adam's steps, so that Adam's learning rate and decay fit. Not negative. It goes before `rule`.
      rule: "at_least_one"; "spectral", by which an orthogonal matrix changes the root mean square of outputs by as much
        for every shape; or a function of rows and columns.

    State: the time. Reads: updates only.
    Source: Jordan et al., Muon, 2024; Liu et al., Muon is scalable for LLM training, 2025, section 2.2
      (arXiv:2502.16982), 0.2; Yang, Simon, Bernstein, 2023 (arXiv:2310.17813), "spectral", as in Scion and Dion.
    """

    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)
    consistent_rms: Hyperparameter | None = number(default=None, within="[0, inf)", optional=True)
    rule: Any = static(default="at_least_one", convert=_rule, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (rms,) = (None,) if self.consistent_rms is None else at(state.count, self.consistent_rms)
        rule = self.rule if callable(self.rule) else RULES[self.rule]

        def leaf(g, x, axes):
            _, rows, columns = axes.sizes(x.shape)
            return g * (rule(rows, columns) if rms is None else math.sqrt(max(rows, columns)) * rms)

        leaves, structure = jax.tree.flatten(updates)
        parts = divided(self.weight_dimension_numbers, updates, self.name)
        scaled = [leaf(g, *part) for g, part in zip(leaves, parts, strict=True)]
        return structure.unflatten(scaled), ClockState(tick(state.count))

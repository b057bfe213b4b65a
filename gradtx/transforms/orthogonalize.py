"""The orthogonal matrix nearest to one array."""

from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.linalg.matrices import axes, map_matrices
from gradtx.linalg.newton_schulz import PRECONDITIONINGS, orthogonalized


def orthogonalize_via_newton_schulz(
    x: Array,
    ns_coeffs: Any,
    ns_steps: int = 5,
    preconditioning: str = "frobenius",
    eps: ArrayLike = 1e-8,
    dimension_numbers: Any = None,
) -> Array:
    """U V^T of a matrix U S V^T, nearly: the step of `scale_by_muon` for one array.

    Args:
      x: a matrix, or an array of others whose axes `dimension_numbers` name.
      ns_coeffs: three numbers, or a triple for each step, shape (steps, 3).
      ns_steps, preconditioning, eps: see `scale_by_muon`.
      dimension_numbers: a `MuonDimensionNumbers`; None: a matrix.

    Raises:
      ValueError: the shapes or the preconditioning are others.
    """
    coefficients = jnp.asarray(ns_coeffs)
    if coefficients.ndim not in (1, 2) or coefficients.shape[-1] != 3 or preconditioning not in PRECONDITIONINGS:
        raise ValueError(
            f"`orthogonalize_via_newton_schulz`: ns_coeffs must have the shape (3,) or (steps, 3), got "
            f"{coefficients.shape}, and preconditioning be one of {PRECONDITIONINGS}, got {preconditioning!r}."
        )
    if dimension_numbers is None and x.ndim != 2:
        raise ValueError(
            f"`orthogonalize_via_newton_schulz`: x must be a matrix, or dimension_numbers given, got shape {x.shape}."
        )
    triples: Any = list(coefficients) if coefficients.ndim == 2 else [coefficients] * ns_steps
    named = (0, 1) if dimension_numbers is None else dimension_numbers
    orthogonal = lambda x, triples, eps: orthogonalized(x, triples, preconditioning, eps)
    return map_matrices(orthogonal, [x], [axes(x.ndim, *named)], (triples, eps))[0]

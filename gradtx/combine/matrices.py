"""Matrices apart from all else: the division that methods of matrices need."""

from dataclasses import dataclass
from typing import Any

import jax

from gradtx import paths
from gradtx.combine.dimensions import as_dimension_numbers, dimension_numbers
from gradtx.combine.masking import as_mask, chosen
from gradtx.combine.partition import partition
from gradtx.core import GradientTransformation, Params

MATRICES, OTHERS = "matrices", "others"


@dataclass(frozen=True)
class matrix_labels:
    """The labels by which `matrices_and_others` divides parameters.

        partition({"matrices": ..., "others": ..., "frozen": ...}, labels)

    Args:
      weight_dimension_numbers: None: parameters of two dimensions are matrices. Else those that have dimension numbers;
        see `scale_by_muon`.
      others_mask: which of them are others all the same: one or more regular expressions searched in a leaf's path; a
        pytree of bools; a function of the parameters; see `add_decayed_weights`. None: none.
      matrices, others: the labels.
    """

    weight_dimension_numbers: Any = None
    others_mask: Any = None
    matrices: Any = MATRICES
    others: Any = OTHERS

    def __post_init__(self) -> None:
        for name, convert in (("weight_dimension_numbers", as_dimension_numbers), ("others_mask", as_mask)):
            object.__setattr__(self, name, convert("matrix_labels", name, getattr(self, name)))

    def __call__(self, params: Params) -> Any:
        """A tree of labels with the parameters' structure."""
        leaves, structure = jax.tree.flatten(paths.plain(params))
        numbers = dimension_numbers(self.weight_dimension_numbers, params, "matrix_labels")
        left = [False] * len(leaves)
        if self.others_mask is not None:
            left = jax.tree.leaves(chosen(self.others_mask, params, "matrix_labels"))
        return structure.unflatten(
            [
                self.others if mine is None or is_left else self.matrices
                for mine, is_left in zip(numbers, left, strict=True)
            ]
        )


def muon_labels(weight_dimension_numbers: Any = None, adam_mask: Any = None) -> matrix_labels:
    """`matrix_labels` with the labels of `muon`: "muon" for what it makes orthogonal, "adam" for the others.

    partition({"muon": ..., "adam": ...}, muon_labels(adam_mask="embedding"))
    """
    return matrix_labels(weight_dimension_numbers, adam_mask, "muon", "adam")


def matrices_and_others(
    matrices: GradientTransformation,
    others: GradientTransformation,
    weight_dimension_numbers: Any = None,
    others_mask: Any = None,
) -> GradientTransformation:
    """One transformation for the parameters that are matrices and another for all else: a `partition` into "matrices"
    and "others", by `matrix_labels`.

        matrices_and_others(
            chain(trace(0.95), orthogonalize(), scale_by_learning_rate(0.02)),
            adamw(3e-4),
            others_mask=["embedding", "lm_head"],
        )

    Args:
      matrices: a transformation, such as a chain of links of matrices. Those take `weight_dimension_numbers` too.
      others: a transformation.
      weight_dimension_numbers, others_mask: which are matrices; see `matrix_labels`.
    """
    labels = matrix_labels(weight_dimension_numbers, others_mask)
    return partition({MATRICES: matrices, OTHERS: others}, labels)

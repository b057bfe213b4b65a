"""Older names of tree utilities, which Optax deprecates."""

from typing import Any

from jax import Array

from gradtx.tree.arithmetic import add_scale, norm, scale

tree_scalar_mul = scale
tree_add_scalar_mul = add_scale


def tree_l1_norm(tree: Any) -> Array:
    """`norm(tree, 1)`."""
    return norm(tree, 1)


def tree_l2_norm(tree: Any, squared: bool = False) -> Array:
    """`norm(tree, 2, squared)`."""
    return norm(tree, 2, squared)


def tree_linf_norm(tree: Any) -> Array:
    """`norm(tree, inf)`."""
    return norm(tree, "inf")

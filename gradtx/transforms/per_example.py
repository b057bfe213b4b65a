"""Bounding the gradient of every example of a batch, as differential privacy wants it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise
from gradtx.moments import abs_sq, length, shrinkage


def per_example_global_norm_clip(grads: Any, l2_norm_clip: ArrayLike) -> tuple[Any, Array]:
    """The sum of the gradients of a batch's examples, each scaled down to a joint norm, and how many were.

        sum_i g_i min(1, l2_norm_clip / |g_i|),        |g_i| over all leaves

    Args:
      grads: a pytree of gradients, of each leaf one per example, along the first dimension.
      l2_norm_clip: the bound, in units of the gradients. Not negative; infinity clips nothing.

    Returns:
      The sums, float32 or wider, and the number of examples that were scaled down, int32.

    Raises:
      ValueError: there is no leaf, or the first dimensions differ.
    Source: Abadi et al., Deep learning with differential privacy, 2016, Algorithm 1 without its noise
      (arXiv:1607.00133).
    """
    grads = _of_examples("per_example_global_norm_clip", grads)
    squares = [jnp.sum(abs_sq(g), axis=tuple(range(1, g.ndim))) for g in jax.tree.leaves(grads)]
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        factors = shrinkage(length(sum(squares[1:], squares[0])), l2_norm_clip)
    shaped = lambda g: jnp.expand_dims(factors.astype(g.dtype), range(1, g.ndim))
    return jax.tree.map(lambda g: jnp.sum(shaped(g) * g, axis=0), grads), jnp.sum(factors < 1, dtype=jnp.int32)


def per_example_layer_norm_clip(grads: Any, global_l2_norm_clip: ArrayLike, uniform: bool = True) -> tuple[Any, Any]:
    """As `per_example_global_norm_clip`, but of each leaf by its own norm: the bounds' squares sum to the square of C.

    Args:
      grads: a pytree of gradients, of each leaf one per example, along the first dimension.
      global_l2_norm_clip: C, the bound on an example's joint norm. Not negative.
      uniform: each of K leaves is bounded by C / sqrt(K); False: by C times the root of its share of all entries.

    Returns:
      The sums, and of each leaf the number of examples that were scaled down.

    Source: McMahan, Ramage, Talwar, Zhang, Learning differentially private recurrent language models, ICLR 2018,
      section 2 (arXiv:1710.06963).
    """
    grads = _of_examples("per_example_layer_norm_clip", grads)
    leaves, structure = jax.tree.flatten(grads)
    sizes = [1 if uniform else math.prod(g.shape[1:]) for g in leaves]
    shares = [(n / max(sum(sizes), 1)) ** 0.5 for n in sizes]
    found = [
        per_example_global_norm_clip(g, global_l2_norm_clip * share) for g, share in zip(leaves, shares, strict=True)
    ]
    return structure.unflatten(x for x, _ in found), structure.unflatten(n for _, n in found)


def beside(params: Any, updates: Any) -> Any:
    """What was made of the gradients of examples, in the containers of the parameters, where those are given.

    A container that takes nothing but arrays like the parameters could not hold the gradients.
    """
    return updates if params is None else leafwise.choose(lambda p, u: u, params, updates)


def _of_examples(caller: str, grads: Any) -> Any:
    """The gradients as floats, float32 or wider."""
    shapes = [jnp.shape(g) for g in jax.tree.leaves(grads)]
    if not shapes or () in shapes or len({shape[0] for shape in shapes}) > 1:
        raise ValueError(
            f"`{caller}`: the first dimension of every leaf must be the examples; the shapes are {shapes}."
        )
    return jax.tree.map(lambda g: leafwise.widen(g if leafwise.is_float(g) else jnp.asarray(g, float)), grads)

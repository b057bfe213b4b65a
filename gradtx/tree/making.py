"""Trees like another: filled, drawn, cast."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradtx.placement import sharding_of


def zeros_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Zeros with the leaves' shapes and shardings, in `dtype` or else in theirs."""
    return full_like(tree, 0, dtype)


def ones_like(tree: Any, dtype: DTypeLike | None = None) -> Any:
    """Ones with the leaves' shapes and shardings, in `dtype` or else in theirs."""
    return full_like(tree, 1, dtype)


def full_like(tree: Any, fill_value: ArrayLike, dtype: DTypeLike | None = None) -> Any:
    """Every entry `fill_value`, with the leaves' shapes and shardings, in `dtype` or else in theirs."""
    return jax.tree.map(lambda x: jnp.full_like(x, fill_value, dtype=dtype), tree)


def cast(tree: Any, dtype: DTypeLike | None) -> Any:
    """The leaves in another dtype; None leaves them."""
    return tree if dtype is None else jax.tree.map(lambda x: jnp.asarray(x).astype(dtype), tree)


def cast_like(tree: Any, other_tree: Any) -> Any:
    """Each leaf in the dtype of its counterpart in the other tree."""
    return jax.tree.map(lambda x, like: jnp.asarray(x).astype(jnp.asarray(like).dtype), tree, other_tree)


def dtype(tree: Any, mixed_dtype_handler: str | None = None) -> Any:
    """The dtype of the leaves; JAX's default one for a tree without leaves.

    Args:
      mixed_dtype_handler: where there are several. None: an error. "promote": what all are promoted to. "lowest" and
        "highest": the one of them that is promoted to all the others, or that all are promoted to.

    Raises:
      ValueError: there are several, and no rule, or none of them is the lowest or highest.
    """
    found = list(dict.fromkeys(jnp.asarray(x).dtype for x in jax.tree.leaves(tree)))
    if not found:
        return jnp.result_type(float)
    if mixed_dtype_handler == "promote":
        return functools.reduce(jnp.promote_types, found)
    if mixed_dtype_handler is None and len(found) == 1:
        return found[0]
    reaches = {
        "lowest": lambda one, other: jnp.promote_types(one, other) == other,
        "highest": lambda one, other: jnp.promote_types(one, other) == one,
    }
    if mixed_dtype_handler is None or mixed_dtype_handler not in reaches:
        raise ValueError(
            f"`dtype`: the leaves are of several dtypes, {', '.join(x.name for x in found)}: choose "
            f'mixed_dtype_handler="promote", "lowest" or "highest"; it is {mixed_dtype_handler!r}.'
        )
    for one in found:
        if all(reaches[mixed_dtype_handler](one, other) for other in found):
            return one
    names = ", ".join(x.name for x in found)
    raise ValueError(f"`dtype`: none of the leaves' dtypes {names} is the {mixed_dtype_handler}.")


def batch_shape(tree: Any, shape: tuple[int, ...] = ()) -> Any:
    """Every leaf repeated along new leading dimensions."""
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (*shape, *jnp.shape(x))), tree)


def split_key_like(rng_key: Array, target_tree: Any) -> Any:
    """A random key for each leaf, in the tree's structure."""
    leaves, structure = jax.tree.flatten(target_tree)
    return structure.unflatten(list(jax.random.split(rng_key, len(leaves))) if leaves else [])


def random_like(
    rng_key: Array, target_tree: Any, sampler: Callable = jax.random.normal, dtype: DTypeLike | None = None
) -> Any:
    """Random entries with the leaves' shapes and shardings, each leaf from a key of its own.

    Args:
      sampler: from (key, shape, dtype) to an array, such as `jax.random.normal`.
      dtype: of what is drawn; None, the leaf's.
    """

    def leaf(x, key):
        drawn = sampler(key, jnp.shape(x), dtype or jnp.asarray(x).dtype)
        place = sharding_of(x)
        return jax.device_put(drawn, place) if place is not None and x.committed else drawn

    return jax.tree.map(leaf, target_tree, split_key_like(rng_key, target_tree))


def unwrap_random_key_data(input_tree: Any) -> Any:
    """The tree with the words of each random key in its place, to compare them as numbers."""
    is_key = lambda x: hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return jax.tree.map(lambda x: jax.random.key_data(x) if is_key(x) else x, input_tree)

"""Trees as vectors: sums, products, norms. None is an empty subtree."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise


def add(tree_x: Any, tree_y: Any, *other_trees: Any) -> Any:
    """The sum of two trees or more, leaf by leaf."""
    return jax.tree.map(lambda *xs: functools.reduce(lambda x, y: x + y, xs), tree_x, tree_y, *other_trees)


def sub(tree_x: Any, tree_y: Any) -> Any:
    """x - y, leaf by leaf."""
    return jax.tree.map(lambda x, y: x - y, tree_x, tree_y)


def mul(tree_x: Any, tree_y: Any) -> Any:
    """x y, leaf by leaf and entry by entry."""
    return jax.tree.map(lambda x, y: x * y, tree_x, tree_y)


def div(tree_x: Any, tree_y: Any) -> Any:
    """x / y, leaf by leaf and entry by entry."""
    return jax.tree.map(lambda x, y: x / y, tree_x, tree_y)


def scale(scalar: ArrayLike, tree: Any) -> Any:
    """The tree times a number."""
    return jax.tree.map(lambda x: scalar * x, tree)


def add_scale(tree_x: Any, scalar: ArrayLike, tree_y: Any) -> Any:
    """x + scalar y, leaf by leaf, in the dtype of x: a large number times small ones is not rounded to that of y."""

    def leaf(x, y):
        if x is None:
            return None
        return (x + scalar * y).astype(x.dtype) if hasattr(x, "dtype") else x + scalar * y

    return jax.tree.map(leaf, tree_x, tree_y, is_leaf=lambda x: x is None)


def vdot(tree_x: Any, tree_y: Any) -> Array:
    """The inner product of two trees as vectors, the first one conjugated, accumulated in float32 or wider."""

    def leaf(x, y):
        x, y = leafwise.widen(jnp.asarray(x)), leafwise.widen(jnp.asarray(y))
        if any(jax.typeof(x).sharding.spec):  # its type says that it is sharded: such an array cannot be flattened
            return jnp.sum(jnp.conj(x) * y)
        return jnp.vdot(x, y, precision=jax.lax.Precision.HIGHEST)

    products = jax.tree.map(leaf, tree_x, tree_y)
    return sum(products)


def sum(tree: Any, associative_reduction: bool = False) -> Array:
    """The sum of all entries of all leaves.

    Args:
      associative_reduction: add the leaves' sums in pairs, in a tree of additions: more exact for many leaves.
    """
    sums = [jnp.sum(x) for x in jax.tree.leaves(tree)]
    with jax.numpy_dtype_promotion("standard"):
        while associative_reduction and len(sums) > 2:
            sums = [functools.reduce(jnp.add, sums[i : i + 2]) for i in range(0, len(sums), 2)]
        return functools.reduce(jnp.add, sums) if sums else jnp.zeros(())


def max(tree: Any) -> Array:
    """The largest entry of all leaves; minus infinity for a tree without entries."""
    with jax.numpy_dtype_promotion("standard"):
        found = [jnp.max(x) for x in map(jnp.asarray, jax.tree.leaves(tree)) if x.size]
        return functools.reduce(jnp.maximum, found) if found else jnp.array(-jnp.inf)


def min(tree: Any) -> Array:
    """The smallest entry of all leaves; infinity for a tree without entries."""
    with jax.numpy_dtype_promotion("standard"):
        found = [jnp.min(x) for x in map(jnp.asarray, jax.tree.leaves(tree)) if x.size]
        return functools.reduce(jnp.minimum, found) if found else jnp.array(jnp.inf)


def size(tree: Any) -> int:
    """The number of entries of all leaves."""
    return int(np.sum([jnp.size(x) for x in jax.tree.leaves(tree)], dtype=np.int64))


def norm(tree: Any, ord: int | str | float | None = None, squared: bool = False) -> Array:
    """The norm of a tree as one vector, accumulated in float32 or wider whatever the leaves' dtype.

    Args:
      ord: 1, 2 or infinity ("inf"); None is 2.
      squared: its square.

    Raises:
      ValueError: another order.
    """
    if ord in (None, 2):
        total = leafwise.norm(jax.tree.map(jnp.asarray, tree)) if not squared else None
        if total is not None:
            return total
        with jax.numpy_dtype_promotion("standard"):
            return functools.reduce(jnp.add, leafwise.squares(jax.tree.map(jnp.asarray, tree)), jnp.zeros(()))
    sizes = jax.tree.map(lambda x: jnp.abs(leafwise.widen(jnp.asarray(x))), tree)
    if ord == 1:
        total = sum(sizes)
    elif ord in (np.inf, "inf", "infinity"):
        total = max(sizes) if size(sizes) else jnp.zeros(())
    else:
        raise ValueError(f"`norm`: ord must be 1, 2, infinity or None, got {ord!r}.")
    return jnp.square(total) if squared else total


def where(condition: Any, tree_x: Any, tree_y: Any) -> Any:
    """x where the condition holds, else y, leaf by leaf; the condition is an array that fits every leaf."""
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), tree_x, tree_y)


def clip(tree: Any, min_value: ArrayLike | None = None, max_value: ArrayLike | None = None) -> Any:
    """Each entry, brought into [min_value, max_value]; None bounds nothing."""
    return jax.tree.map(lambda x: jnp.clip(x, min_value, max_value), tree)


def conj(tree: Any) -> Any:
    """The complex conjugate of each leaf."""
    return jax.tree.map(jnp.conj, tree)


def real(tree: Any) -> Any:
    """The real part of each leaf."""
    return jax.tree.map(jnp.real, tree)


def allclose(a: Any, b: Any, rtol: ArrayLike = 1e-5, atol: ArrayLike = 1e-8, equal_nan: bool = False) -> Any:
    """Whether every entry of two trees agrees within tolerances, as `jnp.allclose` has it for arrays."""
    close = jax.tree.map(lambda x, y: jnp.allclose(x, y, rtol, atol, equal_nan), a, b)
    return functools.reduce(jnp.logical_and, jax.tree.leaves(close), jnp.array(True))

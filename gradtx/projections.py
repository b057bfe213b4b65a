"""Euclidean projections: the nearest point of a set, for a tree of arrays as one vector. None is an empty subtree.

They are computed in float32 or wider, and each leaf comes back in its dtype. With a step of an optimizer before it, a
projection makes projected gradient descent: `params = projection_simplex(apply_updates(params, updates))`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise
from gradtx.linalg import simplex
from gradtx.moments import abs_sq, length, shrinkage


def projection_non_negative(tree: Any) -> Any:
    """max(x, 0), entry by entry: the nearest point without negative entries."""
    return jax.tree.map(jax.nn.relu, tree)


def projection_box(tree: Any, lower: Any, upper: Any) -> Any:
    """Each entry, brought into [lower, upper].

    Args:
      lower, upper: numbers, or trees of numbers and arrays like `tree` or like its upper part. (With a tree of several
        leaves, Optax's takes trees alone.)

    Raises:
      ValueError: both are numbers, and the lower is the larger.
    """
    if isinstance(lower, int | float) and isinstance(upper, int | float) and lower > upper:
        raise ValueError(f"`projection_box`: lower must be at most upper, got {lower} and {upper}.")
    lower, upper = jax.tree.broadcast(lower, tree), jax.tree.broadcast(upper, tree)
    return _map(lambda x, low, high: jnp.clip(x, low, high), tree, lower, upper)


def projection_hypercube(tree: Any, scale: Any = 1) -> Any:
    """Each entry, brought into [0, scale].

    Args:
      scale: at least 0; a number or a tree, as in `projection_box`.
    """
    _check("projection_hypercube", scale)
    return projection_box(tree, 0, scale)


def projection_simplex(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest point with no negative entry and the sum `scale`: max(x - tau, 0), with the tau that gives the sum.

    With a vector and scale 1 it is sparsemax. Nothing is sorted, and leaves are not joined to one array.

    Args:
      tree: floating; an entry of minus infinity becomes 0.
      scale: at least 0.

    Raises:
      TypeError: leaves that are not floating.
      ValueError: a negative scale, where it is a number.

    Source: Michelot, A finite algorithm for finding the projection of a point onto the canonical simplex of R^n, 1986.
    """
    _check("projection_simplex", scale)
    return _on_leaves(lambda xs: simplex.project(_real("projection_simplex", xs), scale), tree)


def projection_l1_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest point with sum |x| = `scale`: the signs of x, and `projection_simplex` of |x|.

    An entry of 0 counts as positive, so that the sum is right also within the sphere. (Optax leaves it 0.)

    Arguments: `projection_simplex`; leaves may be complex.
    """
    _check("projection_l1_sphere", scale)
    return _on_leaves(lambda xs: _l1_sphere(xs, scale), tree)


def projection_l1_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """The nearest point with sum |x| <= `scale`: within the ball x itself, else that on the sphere.

    Arguments: `projection_l1_sphere`.
    """
    _check("projection_l1_ball", scale)

    def project(xs: list[Array]) -> list[Array]:
        total = jnp.sum(jnp.stack([jnp.sum(jnp.abs(x)) for x in xs])) if xs else jnp.zeros(())
        return jax.lax.cond(total <= scale, lambda xs: xs, lambda xs: _l1_sphere(xs, scale), xs)

    return _on_leaves(project, tree)


def projection_l2_sphere(tree: Any, scale: ArrayLike = 1) -> Any:
    """scale x / |x|: the nearest point with norm `scale`. From 0 all are as near: it is that of equal entries.

    Args:
      scale: at least 0.
    """
    _check("projection_l2_sphere", scale)

    def project(xs: list[Array]) -> list[Array]:
        norm, size = leafwise.norm(xs), max(sum(x.size for x in xs), 1)
        factor = jnp.divide(scale, jnp.where(norm == 0, 1, norm))
        return [jnp.where(norm == 0, jnp.multiply(scale, size**-0.5), factor * x) for x in xs]

    return _on_leaves(project, tree)


def projection_l2_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """x min(1, scale / |x|): the nearest point with norm at most `scale`.

    Args:
      scale: at least 0.
    """
    _check("projection_l2_ball", scale)

    def project(xs: list[Array]) -> list[Array]:
        factor = shrinkage(leafwise.norm(xs), scale)
        return [factor * x for x in xs]

    return _on_leaves(project, tree)


def projection_linf_ball(tree: Any, scale: ArrayLike = 1) -> Any:
    """Each entry, brought to |x| <= scale.

    Args:
      scale: at least 0.
    """
    _check("projection_linf_ball", scale)

    _check("projection_linf_ball", scale)

    def leaf(x: Array) -> Array:
        return x * shrinkage(jnp.abs(x), scale) if jnp.iscomplexobj(x) else jnp.clip(x, jnp.negative(scale), scale)

    return _map(leaf, tree)


def projection_vector(x: Any, a: Any) -> Any:
    """(<a, x> / <a, a>) a: the nearest multiple of the vector a; 0 where a is 0.

    Args:
      x, a: trees of one structure, with leaves of equal shapes. <a, x> conjugates a.

    Raises:
      ValueError: trees that differ.
    """
    inner, square = _products("projection_vector", x, a)
    factor = _ratio(inner, square)
    return _map(lambda _, a: factor * a, x, a)


def projection_hyperplane(x: Any, a: Any, b: ArrayLike) -> Any:
    """x + ((b - <a, x>) / <a, a>) a: the nearest point y with <a, y> = b; x where a is 0.

    Args:
      b: a number. Other arguments: `projection_vector`.
    """
    inner, square = _products("projection_hyperplane", x, a)
    factor = _ratio(jnp.subtract(b, inner), square)
    return _map(lambda x, a: x + factor * a, x, a)


def projection_halfspace(x: Any, a: Any, b: ArrayLike) -> Any:
    """x + min(0, (b - <a, x>) / <a, a>) a: the nearest point y with <a, y> <= b; x where a is 0.

    Args:
      b: a number. Other arguments: `projection_vector`; of complex vectors <a, y> is the real part.
    """
    inner, square = _products("projection_halfspace", x, a)
    factor = jnp.minimum(_ratio(jnp.subtract(b, inner.real), square), 0)
    return _map(lambda x, a: x + factor * a, x, a)


def _check(function: str, scale: Any) -> None:
    if isinstance(scale, int | float) and not scale >= 0:
        raise ValueError(f"`{function}`: scale must be at least 0, got {scale}.")


def _real(function: str, xs: list[Array]) -> list[Array]:
    for x in xs:
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise TypeError(f"`{function}`: tree must be floating, got a leaf of {x.dtype.name}.")
    return xs


def _l1_sphere(xs: list[Array], scale: ArrayLike) -> list[Array]:
    sizes = [length(abs_sq(x)) if jnp.iscomplexobj(x) else jnp.where(x < 0, -x, x) for x in xs]
    turns = [
        jnp.where(size > 0, x / jnp.where(size > 0, size, 1), 1) if jnp.iscomplexobj(x) else jnp.where(x < 0, -1, 1)
        for x, size in zip(xs, sizes, strict=True)
    ]
    return [turn * size for turn, size in zip(turns, simplex.project(sizes, scale), strict=True)]


def _on_leaves(project: Callable[[list[Array]], list[Array]], tree: Any) -> Any:
    """Applies a function of all leaves together, and casts each back."""
    leaves, structure = jax.tree.flatten(tree)
    arrays = [jnp.asarray(x) for x in leaves]
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        found = project(leafwise.widen(arrays))
    return jax.tree.unflatten(structure, [_like(x, y) for x, y in zip(arrays, found, strict=True)])


def _map(leaf: Callable[..., Array], tree: Any, *rest: Any) -> Any:
    """Applies a formula to each leaf, and casts back."""

    def cast(x: ArrayLike, *others: ArrayLike) -> Array:
        x = jnp.asarray(x)
        with jax.numpy_dtype_promotion("standard"):
            return _like(x, leaf(*map(leafwise.widen, (x, *others))))

    return jax.tree.map(cast, tree, *rest)


def _like(x: Array, y: Array) -> Array:
    return y.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else y


def _products(function: str, x: Any, a: Any) -> tuple[Array, Array]:
    """<a, x> and <a, a>."""
    rows, structures = zip(*map(jax.tree.flatten, (x, a)), strict=True)
    shapes = [list(map(jnp.shape, row)) for row in rows]
    if structures[0] != structures[1] or shapes[0] != shapes[1]:
        mine, its = (f"{structure} of {shapes}" for structure, shapes in zip(structures, shapes, strict=True))
        raise ValueError(f"`{function}`: a must have the structure and shapes of x, {mine}, got {its}.")
    pairs = [leafwise.widen(list(map(jnp.asarray, pair))) for pair in zip(*rows, strict=True)]
    with jax.numpy_dtype_promotion("standard"):
        inner = [jnp.sum(jnp.conj(a) * x) for x, a in pairs]
        square = [jnp.sum(abs_sq(a)) for _, a in pairs]
        return (jnp.sum(jnp.stack(inner)), jnp.sum(jnp.stack(square))) if pairs else (jnp.zeros(()), jnp.zeros(()))


def _ratio(x: Array, square: Array) -> Array:
    return jnp.where(square > 0, x / jnp.where(square > 0, square, 1), 0)

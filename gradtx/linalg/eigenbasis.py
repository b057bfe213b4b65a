"""Eigenvectors of the sides of matrices and tensors: statistics, rotations, and bases that follow by iteration.

A tensor is an entry of a stack, n x d1 x d2 ...; for each of its sides there is a stack of d x d matrices, or None
where that side is left alone. In symbols, X_(k) is the tensor unfolded, side k as rows, all others as columns.
"""

import math
import string
from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

Bases = Sequence[Array | None]  # of each side


def rotated(x: Array, bases: Bases, *, precision: Any = "highest", dtype: DTypeLike | None = None) -> Array:
    """The tensors in other bases: each side's coordinates along the columns of its Q, Q^H X_(k).

    Args:
      x: n x d1 x d2 ...
      bases: of each side its matrix; None leaves the side.
      precision: of the products, as JAX names it. An accelerator's default has 10 bits or 8.
      dtype: in what products of real matrices are computed, such as "bfloat16"; sums are not. None, that of `x`.
    """
    return _turned(x, bases, "ij", True, precision, dtype)


def rotated_back(x: Array, bases: Bases, *, precision: Any = "highest", dtype: DTypeLike | None = None) -> Array:
    """The inverse of `rotated` for orthogonal Q: Q X_(k)."""
    return _turned(x, bases, "ji", False, precision, dtype)


def _turned(x: Array, bases: Bases, form: str, conjugated: bool, precision: Any, dtype: DTypeLike | None) -> Array:
    narrow = x.dtype if dtype is None or jnp.iscomplexobj(x) else dtype
    for side, basis in enumerate(bases):
        if basis is not None:
            axes = string.ascii_lowercase[11 : 11 + x.ndim - 1]
            old, new = axes[:side] + "i" + axes[side + 1 :], axes[:side] + "j" + axes[side + 1 :]
            q = basis.conj() if conjugated else basis
            x = jnp.einsum(
                f"a{old},a{form}->a{new}",
                x.astype(narrow),
                q.astype(narrow),
                precision=precision,
                preferred_element_type=x.dtype,
            )
    return x


def second_moment(x: Array, side: int, *, precision: Any = "highest") -> Array:
    """X_(k) X_(k)^H of each tensor."""
    flat = jnp.moveaxis(x, side + 1, 1).reshape(len(x), x.shape[side + 1], math.prod(x.shape[1:]) // x.shape[side + 1])
    return jnp.einsum("aij,akj->aik", flat, flat.conj(), precision=precision)


def squares(x: Array, side: int) -> Array:
    """The diagonal of X_(k) X_(k)^H of each tensor."""
    square = jnp.square(x.real) + jnp.square(x.imag) if jnp.iscomplexobj(x) else jnp.square(x)
    return jnp.sum(square, axis=[i + 1 for i in range(x.ndim - 1) if i != side])


def whitened_moment(
    x: Array, side: int, bases: Bases, values: Bases, *, precision: Any = "highest"
) -> tuple[Array, Array]:
    """X_(k) W X_(k)^H / m, where W whitens all other sides by what is known of them; its diagonal in side k's basis.

    W is the Kronecker product of Q diag(1 / values) Q^H over the other sides; m is the product of their sizes.

    Args:
      bases, values: of each side Q and the eigenvalues, positive, or None.
    """
    others = [None if i == side else q for i, q in enumerate(bases)]
    y = rotated(x, others, precision=precision)
    for i, v in enumerate(values):
        if v is not None and i != side:
            y = y * jax.lax.rsqrt(along(v, i, y.ndim))
    m = math.prod(x.shape[1:]) // x.shape[side + 1]
    own = rotated(y, [q if i == side else None for i, q in enumerate(bases)], precision=precision)
    return second_moment(y, side, precision=precision) / m, squares(own, side) / m


def along(values: Array, side: int, ndim: int) -> Array:
    """Numbers of a side, n x d, as an array of `ndim` dimensions that broadcasts over the other sides."""
    return values.reshape(len(values), *[values.shape[1] if i == side else 1 for i in range(ndim - 1)])


def eigenbasis(factor: Array, old: Array, iterate: ArrayLike, *, sort: bool, precision: Any = "highest") -> tuple:
    """An orthogonal basis of each symmetric matrix, nearer to its eigenvectors than the old one or equal to them.

        Q <- eigenvectors of F               by decomposition
        Q <- the Q of the QR of F Q          by one orthogonal iteration

    A basis that is not finite, as where F is not, is not taken: the old one stays.

    Args:
      factor: F, n x d x d. Its scale does not matter.
      old: the last basis.
      iterate: whether to iterate; a bool, or an array that tells, and then both ways are compiled.
      sort: order the eigenvectors by falling eigenvalues; of an iteration by what the old basis makes of them,
        diag(Q^H F Q). Otherwise a decomposition gives them by rising ones, and an iteration leaves the order.

    Returns:
      The basis; Q_new^H Q_old, which rotates coordinates from the old basis to the new; and how the old columns are
      sorted by their estimated eigenvalues, n x d, where `sort`: squares of coordinates move along with it.

    Derivative: none, the basis counts as given.
    """
    factor, old = jax.lax.stop_gradient((factor, old))
    largest = jnp.max(jnp.abs(factor), axis=(-2, -1), keepdims=True)
    factor = factor / jnp.where(largest > 0, largest, 1)  # so that squares inside of the decomposition stay in range
    product = jnp.einsum("aij,ajk->aik", factor, old, precision=precision)
    places = jnp.arange(old.shape[-1])
    order = jnp.broadcast_to(places, old.shape[:-1])
    if sort:
        order = jnp.argsort(-jnp.sum(old.conj() * product, axis=-2).real, axis=-1)  # stable

    def decomposed():
        vectors = jnp.linalg.eigh(factor, symmetrize_input=False)[1]
        return vectors[..., ::-1] if sort else vectors

    def iterated():
        return jnp.linalg.qr(jnp.take_along_axis(product, order[:, None, :], axis=-1))[0]

    if not isinstance(iterate, jax.core.Tracer):
        found = iterated() if iterate else decomposed()
    else:
        found = jax.lax.cond(iterate, iterated, decomposed)
    taken = jnp.all(jnp.isfinite(found), axis=(-2, -1), keepdims=True)
    taken &= jnp.isfinite(largest)  # of a matrix that is not finite LAPACK gives numbers all the same
    turn = jnp.einsum("aij,aik->ajk", found.conj(), old, precision=precision)
    identity = jnp.eye(old.shape[-1], dtype=old.dtype)[None]
    order = jnp.where(taken[..., 0], order, places[None])
    return jnp.where(taken, found, old), jnp.where(taken, turn, identity), order


def turned(x: Array, turns: Bases, *, precision: Any = "highest") -> Array:
    """Coordinates in the old bases as those in the new, by what `eigenbasis` gives of each side."""
    return rotated(x, [None if t is None else t.mT.conj() for t in turns], precision=precision)


def reordered(x: Array, orders: Bases) -> Array:
    """The entries of each side in another order."""
    for side, order in enumerate(orders):
        if order is not None:
            x = jnp.take_along_axis(x, along(order, side, x.ndim), axis=side + 1)
    return x

"""Preconditioners that whiten gradients: Kronecker products with a factor for each side, fitted step by step (PSGD).

P is such that P g has independent entries of variance 1 if g is a random gradient: P = E[g g^H]^(-1/2) as a matrix of
all entries, as far as a Kronecker product can be it. P = Q^H Q, in forms that end in "4P" P = Q; and Q is the product
of one factor for each side, d x d or its diagonal. In symbols, X_(k) is a tensor unfolded, side k as its rows, of m
columns. Tensors are entries of stacks, n x d1 x d2 ...
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx.linalg.eigenbasis import along, rotated, rotated_back, second_moment, squares
from gradtx.linalg.hermitian import norm_bound, rotated_to_hermitian
from gradtx.linalg.triangular import divided

Product = Callable[[Array, Array], Array]


class Form(NamedTuple):
    """One way to change a factor Q by the error E of its side."""

    dense: Callable[[Array, Array, Product, Any], Array]  # of Q, E, the product and its precision
    diagonal: Callable[[Array, Array], Array]
    target: str = "identity"  # what whitened gradients are compared with: "identity", "factor" (Q Q^H), "probe"
    direct: bool = False  # whether Q is P itself


def _left(q: Array, e: Array, dot: Product, precision: Any) -> Array:
    return q - dot(e, q)


def _triangular(q: Array, e: Array, dot: Product, precision: Any) -> Array:
    return q - dot(jnp.triu(e), q)


def _right(q: Array, e: Array, dot: Product, precision: Any) -> Array:
    return q - dot(q, e)


def _quadratic(share: float) -> Callable[[Array, Array, Product, Any], Array]:
    def form(q: Array, e: Array, dot: Product, precision: Any) -> Array:
        q = q - share * dot(e, q)
        q = q - share * dot(q, e)
        return (q + q.mT.conj()) / 2

    return form


def _rotated(order: int) -> Callable[[Array, Array, Product, Any], Array]:
    return lambda q, e, dot, precision: rotated_to_hermitian(q - dot(e, q), order, precision=precision)


def _once(q: Array, e: Array) -> Array:
    return q - e * q


def _twice(share: float) -> Callable[[Array, Array], Array]:
    return lambda q, e: q * jnp.square(1 - share * e)


# E Q and Q E are named by where E stands in dQ. The first is the source's choice.
FORMS = {
    "Q0.5EQ1.5": Form(_rotated(2), _once),
    "QUAD": Form(_quadratic(0.5), _twice(0.5)),
    "QEQ": Form(_right, _once),
    "QEP": Form(_left, _once, target="factor"),
    "PRO4P": Form(_rotated(3), _once, direct=True),
    "QUAD4P": Form(_quadratic(1.0), _twice(1.0), direct=True),
    "EQ": Form(_triangular, _once, target="probe"),
}


def whitened(
    x: Array, factors: Sequence[Array], form: Form, *, precision: Any = "highest", dtype: DTypeLike | None = None
) -> Array:
    """P X of each tensor; entries beyond the largest number are the largest number.

    Args:
      dtype: in what products of real matrices are computed, such as "bfloat16"; sums are not. None, that of `x`.
    """
    size = _largest(x)
    x = _applied(_over(x, size), factors, precision, dtype=dtype)
    if not form.direct:
        x = _applied(x, factors, precision, dtype=dtype, adjoint=True)
    most = jnp.finfo(x.dtype).max
    bounded = lambda y: jnp.clip(y * size, -most, most)
    return bounded(x.real) + 1j * bounded(x.imag) if jnp.iscomplexobj(x) else bounded(x)


def refitted(
    x: Array,
    probe: Array,
    factors: Sequence[Array],
    bounds: Array,
    rate: Any,
    decay: Any,
    form: Form,
    rounds: int,
    *,
    precision: Any = "highest",
) -> tuple[list[Array], Array]:
    """The factors one step nearer to those that whiten, by one gradient X.

        A = P X,  T = A_(k) A_(k)^H - m I                               target "identity"
        A = P X,  T = Q_k A_(k) A_(k)^H Q_k^H - m Q_k Q_k^H             "factor"
        A = Q X,  T = A_(k) A_(k)^H - B_(k) B_(k)^H,  B = Q^-H probe    "probe"
        l = the norm of T, with + in place of -, nearly
        L = max(decay L + (1 - decay) l, l)
        E = rate T / L,      Q_k <- the form's step by E

    Before it the factors are balanced: their largest entries become equal, and their product stays. Where X is 0, or
    what comes out is not finite, factors and bounds stay as they are. T and l are computed relative to the largest
    entries, so that squares do not leave the range of numbers.

    Args:
      x: n x d1 x d2 ...
      probe: random numbers of variance 1 in the shape of `x`; read where the target is "probe".
      factors: of each side n x d x d, or n x d.
      bounds: L of each side, n x sides, real.
      rate: in [0, 1].
      decay: of L, in [0, 1].
      form: one of `FORMS`.
      rounds: see `norm_bound`.

    Source: Li, Preconditioned stochastic gradient descent, 2015 (arXiv:1512.04202); Li, Stochastic Hessian fittings
      with Lie groups, 2024 (arXiv:2402.11858), and psgd_torch; of "PRO4P", NVIDIA's emerging_optimizers.
    """
    old = list(factors)
    factors = _balanced(old)
    dot = lambda a, b: jnp.matmul(a, b, precision=precision)
    size = _largest(x)
    y = _applied(_over(x, size), factors, precision)
    if form.target != "probe" and not form.direct:
        y = _applied(y, factors, precision, adjoint=True)
    top = _largest(y)
    if form.target == "probe":
        other = divided(probe, factors)
        least = _largest(other)
        scale = jnp.maximum(size * top, least)  # of all entries; those that are far below count as 0
        other = _times(_over(other, least), jnp.minimum(1, least / top / size))
        share = size * (top / least)
    else:
        other, scale, share = None, jnp.maximum(size * top, 1), size * top
    y = _times(_over(y, top), jnp.minimum(share, 1))
    scale = scale.reshape(-1)
    new, sizes = [], []
    for side, q in enumerate(factors):
        error, own = _error(y, other, q, side, 1 / scale / scale, form, rounds, precision)
        own_size = jnp.minimum(own * scale * scale, jnp.finfo(own.dtype).max / 4)
        bound = jnp.maximum(decay * bounds[:, side] + (1 - decay) * own_size, own_size)
        slower = jnp.where(own_size < bound, own_size / jnp.where(bound > 0, bound, 1), 1)  # l / L
        error = _times(error, _wide(rate * slower / jnp.where(own > 0, own, 1), q))
        new.append(form.diagonal(q, error) if q.ndim == 2 else form.dense(q, error, dot, precision))
        sizes.append(bound)
    sizes = jnp.stack(sizes, axis=1)
    finite = [jnp.all(jnp.isfinite(a), axis=tuple(range(1, a.ndim))) for a in (*new, sizes)]
    taken = jnp.all(jnp.stack(finite), axis=0) & jnp.any(x != 0, axis=tuple(range(1, x.ndim)))
    choose = lambda new, old: jnp.where(_wide(taken, old), new, old)
    return [choose(*pair) for pair in zip(new, old, strict=True)], choose(sizes, bounds)


def _error(
    y: Array, other: Array | None, q: Array, side: int, unit: Array, form: Form, rounds: int, precision: Any
) -> tuple[Array, Array]:
    """T of a side, and l; of tensors of which 1 in T is `unit`."""
    columns = math.prod(y.shape[1:]) // y.shape[side + 1]
    square = squares if q.ndim == 2 else lambda x, side: second_moment(x, side, precision=precision)
    norm = lambda t: jnp.max(t.real, axis=-1) if t.ndim == 2 else norm_bound(t, rounds, precision=precision)
    if form.target == "identity":
        found, share = square(y, side), unit * columns
        one = jnp.eye(q.shape[-1], dtype=q.dtype)[None] if q.ndim == 3 else jnp.ones((1, 1), found.dtype)
        return found - _times(one, _wide(share, q)), norm(found) + share
    if form.target == "factor":
        own = [q if i == side else None for i in range(y.ndim - 1)]
        found = square(_applied(y, own, precision), side)
        wanted = jnp.square(jnp.abs(q)) if q.ndim == 2 else second_moment(q, 0, precision=precision)
        wanted = _times(wanted, _wide(unit * columns, q))
    else:
        assert other is not None
        found, wanted = square(y, side), square(other, side)
    return found - wanted, norm(found + wanted)


def _applied(
    x: Array,
    factors: Sequence[Array | None],
    precision: Any,
    *,
    adjoint: bool = False,
    dtype: DTypeLike | None = None,
) -> Array:
    """Q X, or Q^H X, for the product of the factors; None leaves a side."""
    turn = rotated if adjoint else rotated_back
    for side, q in enumerate(factors):
        if q is not None and q.ndim == 2:
            x = x * along(q.conj() if adjoint else q, side, x.ndim)
        elif q is not None:
            x = turn(x, [None] * side + [q], precision=precision, dtype=dtype)
    return x


def _balanced(factors: list[Array]) -> list[Array]:
    """Factors with equal largest entries, of the same product."""
    if len(factors) == 1:
        return factors
    sizes = [jnp.max(jnp.abs(q), axis=tuple(range(1, q.ndim))) for q in factors]
    logs = [jnp.log(jnp.where(size > 0, size, 1)) for size in sizes]
    mean = jnp.mean(jnp.stack(logs), axis=0)
    ratios = [jnp.exp(mean - log) for log in logs]
    return [_times(q, _wide(ratio, q)) for q, ratio in zip(factors, ratios, strict=True)]


def _largest(x: Array) -> Array:
    """The largest |entry| of each tensor, 1 of zeros, to divide by."""
    size = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), keepdims=True)
    return jnp.where(size > 0, size, 1)


def _times(x: Array, real: Array) -> Array:
    return x * real.astype(x.dtype)


def _over(x: Array, real: Array) -> Array:
    return x / real.astype(x.dtype)


def _wide(numbers: Array, like: Array) -> Array:
    """A number of each tensor, as an array that broadcasts over it."""
    return numbers.reshape(-1, *[1] * (like.ndim - 1))

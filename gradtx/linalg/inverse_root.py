"""Inverse roots of positive matrices: by eigenvalues, and by matrix products alone (the coupled Newton iteration)."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.linalg.power_iteration import power_iteration
from gradtx.linalg.spectral import exactly
from gradtx.placement import differing_like


def matrix_inverse_pth_root(
    matrix: ArrayLike,
    p: ArrayLike,
    num_iters: ArrayLike = 100,
    ridge_epsilon: ArrayLike = 1e-6,
    error_tolerance: ArrayLike = 1e-6,
    precision: Any = jax.lax.Precision.HIGHEST,
) -> tuple[Array, Array]:
    """(A + ridge I)^(-1/p) of a symmetric matrix A without negative eigenvalues, and how far the iteration came.

        T = ((p + 1) I - M) / p,    M <- T^p M,    H <- H T         until max |M - I| <= error_tolerance
        from M = z B, H = z^(1/p) I,    z = (1 + p) / (2 |B|),    B = A + ridge I,    ridge = ridge_epsilon l

    with l the largest eigenvalue of A, at least 1e-16. Then M is 1 and H the root. It also stops where the norm of
    M - I grows by more than a fifth, with the H before it.

    Args:
      matrix: n x n.
      p: a whole number of at least 1; it may be known only in the program.
      num_iters: the most rounds.
      ridge_epsilon: in units of l. In float32 a condition number beyond about 1e6 needs it.
      error_tolerance: the largest |M - I| of an entry at which to stop.
      precision: of the products. JAX's default is below float32's on an accelerator.

    Returns:
      The root, in the dtype of the matrix, computed in float32 or wider; and max |M - I| of its M.

    It has no derivative in reverse mode.
    Source: Higham, Functions of matrices, 2008, equation 7.18; Guo, Higham, 2006; Anil et al., 2020 (arXiv:2002.09018).
    Differs from Optax: p may be any whole number, where 3, 5, 6, 7 give another power there and 9 and more the 8th;
      float64 is computed in float64; the error is that of the H returned; what must not grow is a norm, where a largest
      entry may grow at first, and ends it there with no root.
    """
    given = jnp.asarray(matrix)
    if given.ndim != 2 or given.shape[0] != given.shape[1]:
        raise ValueError(f"`matrix_inverse_pth_root`: matrix must be square, got shape {given.shape}.")
    if isinstance(p, int | float) and (p < 1 or p != int(p)):
        raise ValueError(f"`matrix_inverse_pth_root`: p must be a whole number of at least 1, got {p!r}.")
    a = given.astype(jnp.promote_types(given.dtype, jnp.float32))
    kind = a.real.dtype
    largest, _ = power_iteration(a, num_iters=100, error_tolerance=1e-6, precision=precision)
    scale = jnp.maximum(largest.real.astype(kind), 1e-16)
    order = jnp.asarray(p, kind)
    unit = jnp.eye(len(a), dtype=a.dtype)
    b = a / scale + jnp.asarray(ridge_epsilon, kind) * unit  # so that no square underflows
    back = scale ** (-1 / order)
    if len(a) <= 1:
        return (b ** (-1 / order) * back).astype(given.dtype), jnp.zeros((), kind)

    def step(carry):
        count, m, h, _, error, _ = carry
        t = ((order + 1) * unit - m) / order
        new = jnp.matmul(_power(t, p, precision), m, precision=precision)
        falls = jnp.linalg.norm(new - unit) < jnp.linalg.norm(m - unit) * 1.2  # but for rounding; an entry's may grow
        return count + 1, new, jnp.matmul(h, t, precision=precision), (h, error), _distance(new, unit), falls

    def unfinished(carry):
        count, _, _, _, error, going = carry
        return (error > error_tolerance) & going & (count < num_iters)

    z = (1 + order) / (2 * jnp.linalg.norm(b))
    m, h = z * b, z ** (1 / order) * unit
    error = _distance(m, unit)
    start = jnp.zeros((), jnp.int32), m, h, (h, error), error, differing_like(jnp.array(True), error)
    _, _, h, (before, error_before), error, good = jax.lax.while_loop(unfinished, step, start)
    h, error = jnp.where(good, h, before), jnp.where(good, error, error_before)
    return (h * back).astype(given.dtype), error


def _distance(m: Array, unit: Array) -> Array:
    return jnp.max(jnp.abs(m - unit))


def _power(x: Array, p: ArrayLike, precision: Any) -> Array:
    """x^p by squaring."""
    product = lambda x, y: jnp.matmul(x, y, precision=precision)
    if not isinstance(p, int | float):

        def step(carry):
            result, square, left = carry
            return jnp.where(left % 2 == 1, product(result, square), result), product(square, square), left // 2

        start = jnp.eye(len(x), dtype=x.dtype), x, jnp.asarray(p).astype(jnp.int32)
        return jax.lax.while_loop(lambda carry: carry[2] > 0, step, start)[0]
    result, square, left = None, x, int(p)
    while left:
        if left % 2:
            result = square if result is None else product(result, square)
        left //= 2
        square = product(square, square) if left else square
    return x if result is None else result


METHODS = ("eigh", "newton")


@partial(jax.jit, static_argnames=("exponent", "method"))  # so that eager code compiles it once
def inverse_roots(
    matrices: Array,
    previous: Array,
    exponent: float,
    *,
    method: str,
    eps: ArrayLike,
    relative_eps: ArrayLike,
    threshold: ArrayLike,
) -> Array:
    """(A + r I)^-exponent of each Hermitian matrix A in a stack, r = eps + relative_eps l_max, or the previous root.

    The previous one stays where A is not finite or all 0, where the root is not finite, and where its error is not
    below the threshold: by eigenvalues, the largest entry of V diag(l) V^H - A, as a part of A's largest; by Newton's
    method, the largest of M - I.

    Args:
      matrices: [n, d, d], without negative eigenvalues but for rounding.
      exponent: positive; by Newton's method 1 / p for a whole p.
      method: "eigh" or "newton".

    Raises:
      ValueError: it is "newton", and the exponent is not 1 / p.
    """
    if method == "newton" and abs(1 / exponent - round(1 / exponent)) > 1e-6:
        raise ValueError(f"Newton's method finds inverse roots, of exponents 1, 1/2, 1/3, ..., not of {exponent}.")
    size = jnp.max(jnp.abs(matrices), axis=(1, 2), initial=0)
    usable = jnp.isfinite(size) & (size > 0)
    safe = jnp.where(_each(usable), matrices, _unit(matrices))
    roots, errors = inverse_power(safe, eps, relative_eps, exponent, method)
    found = usable & (errors < threshold) & jnp.all(jnp.isfinite(roots), axis=(1, 2))
    return jnp.where(_each(found), roots, previous)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def inverse_power(
    a: Array, eps: ArrayLike, relative_eps: ArrayLike, exponent: float, method: str
) -> tuple[Array, Array]:
    """(A + r I)^-exponent of each Hermitian matrix in a stack, and its error: see `inverse_roots`.

    By eigenvalues, which are made positive:

        V diag(l) V^H = A + eps I,      P = V diag((l + relative_eps (l_max - eps) + max(eps - l_min, 0))^-exponent) V^H

    so that the least one, which rounding may have made negative, counts as eps. None counts as less than the rounding
    of the largest.

    Derivative: the formula of Daleckii and Krein, in a form without cancellation, finite where eigenvalues repeat; by
    eigenvalues with either method.
    """
    if method == "newton":
        return _by_products(a, eps, relative_eps, exponent)
    root, error, *_ = _by_eigenvalues(a, eps, relative_eps, exponent)
    return root, error


@inverse_power.defjvp
def _derivative(exponent, method, primals, tangents):
    (a, eps, relative_eps), (da, deps, drelative) = primals, tangents
    root, error, vectors, plain, values, rounded = _by_eigenvalues(a, eps, relative_eps, exponent)
    if method == "newton":
        root, error = _by_products(a, eps, relative_eps, exponent)
    adjoint = jnp.conj(jnp.swapaxes(vectors, 1, 2))
    unit = _unit(a)
    inner = exactly(exactly(adjoint, da + deps * unit), vectors)
    slopes = jnp.diagonal(inner, axis1=1, axis2=2).real
    shift = drelative * (plain[:, -1] - eps) + relative_eps * (slopes[:, -1] - deps)
    shift += jnp.where(plain[:, 0] < eps, deps - slopes[:, 0], 0)
    inner += _each(shift) * unit
    rows, columns = values[:, :, None], values[:, None, :]
    high, low = jnp.maximum(rows, columns), jnp.minimum(rows, columns)
    log = jnp.log(low / high)  # not positive
    ratio = jnp.where(log < 0, jnp.expm1(-exponent * log) / jnp.expm1(jnp.where(log < 0, log, -1)), -exponent)
    ratio = jnp.where(rounded[:, :, None] & rounded[:, None, :], 0, ratio * high ** (-exponent - 1))
    change = exactly(exactly(vectors, ratio * inner), adjoint)
    return (root, error), (change, jnp.zeros_like(error))


def _by_products(a: Array, eps: ArrayLike, relative_eps: ArrayLike, exponent: float) -> tuple[Array, Array]:
    """The root and its error by Newton's method, of matrices scaled so that no square overflows."""
    size = jnp.max(jnp.abs(a), axis=(1, 2), initial=0)
    size = jnp.where(size > 0, size, 1)
    inside = eps / (1 + relative_eps) / size  # the largest eigenvalue, of which the rest is a part, has it too
    damped = a / _each(size) + _each(jnp.asarray(inside)) * _unit(a)
    root = partial(matrix_inverse_pth_root, p=round(1 / exponent), ridge_epsilon=relative_eps)
    roots, errors = jax.vmap(root)(damped)
    return roots * _each(size**-exponent), errors


def _by_eigenvalues(a: Array, eps: ArrayLike, relative_eps: ArrayLike, exponent: float) -> tuple[Array, ...]:
    """The root, its error, eigenvectors, eigenvalues as they are and made positive, and which of these are noise."""
    d, kind = a.shape[-1], a.real.dtype
    if d == 0:
        none = jnp.zeros(a.shape[:2], kind)
        return a, jnp.zeros(len(a), kind), a, none, none, none > 0
    ridged = a + jnp.asarray(eps, kind) * _unit(a)
    plain, vectors = jnp.linalg.eigh(ridged)
    values = plain + (relative_eps * (plain[:, -1] - eps) + jnp.maximum(eps - plain[:, 0], 0))[:, None]
    least = jnp.finfo(kind).eps * jnp.abs(values[:, -1:]) + jnp.finfo(kind).tiny
    rounded = values < least
    values = jnp.maximum(values, least)
    adjoint = jnp.conj(jnp.swapaxes(vectors, 1, 2))
    root = exactly(vectors * values[:, None, :] ** -exponent, adjoint)
    size = jnp.max(jnp.abs(ridged), axis=(1, 2))
    off = jnp.max(jnp.abs(exactly(vectors * plain[:, None, :], adjoint) - ridged), axis=(1, 2))
    return root, off / jnp.where(size > 0, size, 1), vectors, plain, values, rounded


def _each(x: Array) -> Array:
    """A number of each matrix in a stack, to be broadcast over it."""
    return x[:, None, None]


def _unit(a: Array) -> Array:
    """The identity, to be added to each matrix in a stack."""
    return jnp.eye(a.shape[-1], dtype=a.dtype)[None]

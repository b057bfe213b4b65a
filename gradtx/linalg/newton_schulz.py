"""The orthogonal matrix nearest to another, by matrix products alone: the iteration of Newton and Schulz."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

# Jordan's triple leaves singular values between about 0.7 and 1.2; Dion's five, one per step, bring them nearer to 1.
PRESETS = {
    "standard": (3.4445, -4.7750, 2.0315),
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
}
PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")


def orthogonalized(
    x: Array, coefficients: Sequence[Sequence[ArrayLike]], preconditioning: str = "frobenius", eps: ArrayLike = 1e-8
) -> Array:
    """U V^T of the matrices X = U S V^T, nearly, for real ones; U V^H for complex ones.

        X <- a X + (b A + c A^2) X,    A = X X^T        for each triple (a, b, c) in turn

    This applies the polynomial a s + b s^3 + c s^5 to each singular value s, which must be at most about 1 to begin
    with. So X is divided first, with N its size:

    - "frobenius": by N, the root of the sum of its squares, at most sqrt(rows) times more than is needed;
    - "spectral": by N, its largest singular value, from a decomposition of it;
    - "schatten": by N, the fourth root of the sum of the fourth powers of its singular values;
    - "aol": each row i by the root of the sum over j of |A_ij|.

    The last two take A, which the first step needs anyway.

    Args:
      x: ..., rows, columns; as few rows as columns or fewer cost least.
      coefficients: a triple per step.
      preconditioning: one of `PRECONDITIONINGS`.
      eps: added to N in the first two; in the others, the least N. In units of x; not negative.

    Derivative: that of the products; 0 through N where X is 0. Products are in JAX's default precision, which on an
    accelerator is below float32's.
    Source: Jordan et al., Muon, 2024; Bernstein, Newhouse, Old optimizer, new norm, 2024 (arXiv:2409.20325); Grishina,
      Smirnov, Rakhuba, 2025 (arXiv:2506.10935), "schatten"; Boissin et al., Turbo-Muon, 2025 (arXiv:2512.04632), "aol".
    """
    triples: Any = jnp.array([jnp.stack([jnp.asarray(c, x.real.dtype) for c in triple]) for triple in coefficients])
    x, gram = _divided(x, preconditioning, eps)
    if gram is not None and len(triples):
        x, triples = _step(x, gram, triples[0]), triples[1:]
    if not len(triples):
        return x
    return jax.lax.scan(lambda x, triple: (_step(x, _gram(x), triple), None), x, triples)[0]


def _step(x: Array, gram: Array, triple: Array) -> Array:
    a, b, c = (triple[i].astype(x.dtype) for i in range(3))
    return a * x + (b * gram + c * (gram @ gram)) @ x


def _gram(x: Array) -> Array:
    return x @ x.mT.conj()


def _divided(x: Array, preconditioning: str, eps: ArrayLike) -> tuple[Array, Array | None]:
    """The matrices made small enough, and their A where it was needed for that."""
    eps = jnp.asarray(eps, x.real.dtype)
    if preconditioning in ("frobenius", "spectral"):
        if preconditioning == "frobenius":
            size = _root(jnp.sum(jnp.square(x.real) + jnp.square(x.imag), axis=(-2, -1), keepdims=True))
        else:
            size = jnp.linalg.svd(x, compute_uv=False)[..., :1, None] if x.size else jnp.ones((), x.real.dtype)
        size += eps
        return x / jnp.where(size > 0, size, 1), None
    gram = _gram(x)
    sizes = jnp.abs(gram)  # |A_ij|
    if preconditioning == "aol":
        square = jnp.sum(sizes, axis=-1, keepdims=True)
    else:
        square = _root(jnp.sum(jnp.square(sizes), axis=(-2, -1), keepdims=True))
    least = jnp.where(eps > 0, jnp.square(eps), 1)  # 1: where all is 0
    scale = jax.lax.rsqrt(jnp.where(square > jnp.square(eps), square, least))
    return x * scale, gram * scale * scale.mT


def _root(square: Array) -> Array:
    """The square root of x >= 0, with derivative 0 at 0."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

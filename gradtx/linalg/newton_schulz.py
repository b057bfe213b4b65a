"""The orthogonal matrix nearest to another, by matrix products alone: the iteration of Newton and Schulz."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

JORDAN = (3.4445, -4.7750, 2.0315)
NEWTON = (2.0, -1.5, 0.5)  # 1 at 1, with slope 0 and curvature 0

# A triple, to be used as often as is wanted, or a triple for each step. Of "cans" each brings singular values to the
# end of the next one's interval, beyond which that grows: with the eight bits of bfloat16 it diverges.
PRESETS: dict[str, Any] = {
    "standard": JORDAN,  # singular values come between about 0.7 and 1.2 and stay there
    "dion": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (  # Amsel et al., 2025 (arXiv:2505.16932), with its margin for rounding
        (8.156554524902461, -22.48329292557795, 15.878769915207462),
        (4.042929935166739, -2.808917465908714, 0.5000178451051316),
        (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
        (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
        (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
    ),
    "cans": (  # Grishina, Smirnov, Rakhuba, 2025 (arXiv:2506.10935): each as near to 1 as its degree allows
        (8.4703, -25.1081, 18.6293),
        (4.1828, -3.1087, 0.5806),
        (3.9619, -2.9541, 0.5630),
        (3.2866, -2.4647, 0.5074),
        (2.2737, -1.6447, 0.4162),
    ),
    "deepseek_v4": (JORDAN,) * 8 + (NEWTON,) * 2,
    "newton": (NEWTON,) * 12,
}
PRECONDITIONINGS = ("frobenius", "spectral", "aol", "schatten")


def orthogonalized(
    x: Array,
    coefficients: Sequence[Sequence[ArrayLike]],
    preconditioning: str = "frobenius",
    eps: ArrayLike = 1e-8,
    *,
    least: ArrayLike = 0.0,
    safety: ArrayLike = 1.0,
    gram: bool | None = None,
) -> Array:
    """U V^T of the matrices X = U S V^T, nearly, for real ones; U V^H for complex ones.

        X <- a X + (b A + c A^2) X,    A = X X^T        for each triple (a, b, c) in turn

    This applies the polynomial a s + b s^3 + c s^5 to each singular value s, which must be at most about 1 to begin
    with. So X is divided first, by max(safety N + eps, least) with N its size:

    - "frobenius": the root of the sum of its squares, at most sqrt(rows) times more than is needed;
    - "spectral": its largest singular value, from a decomposition of it;
    - "schatten": the fourth root of the sum of the fourth powers of its singular values;
    - "aol": for each row i the root of the sum over j of |A_ij|.

    The last two take A, which the first step needs anyway.

    Where X has far more columns than rows, the steps are taken on A alone, with T = a I + b A + c A^2:

        Q <- Q T,    A <- T A T        and in the end X <- Q X

    Rounding would make small eigenvalues of A negative, which grow: so after the second step, and every third one then,
    X <- Q X is computed and A anew from it; in bfloat16 after every second one.

    Args:
      x: ..., rows, columns; as few rows as columns or fewer cost least.
      coefficients: a triple per step.
      preconditioning: one of `PRECONDITIONINGS`.
      eps, least: in units of x; not negative.
      safety: positive.
      gram: whether to step on A; None, where that takes fewer operations.

    Nothing overflows or vanishes on the way, however large or small x is. Zero stays zero, NaN and infinity in a matrix
    make all of that matrix NaN. Derivative: that of the products; 0 through N where X is 0. Products are in JAX's
    default precision, which on an accelerator is below float32's.
    Source: Jordan et al., Muon, 2024; Bernstein, Newhouse, Old optimizer, new norm, 2024 (arXiv:2409.20325); Grishina,
      Smirnov, Rakhuba, 2025 (arXiv:2506.10935), "schatten"; Boissin et al., Turbo-Muon, 2025 (arXiv:2512.04632), "aol";
      Zhang, Amsel, Chen, Dao, Gram Newton-Schulz, 2026.
    """
    x, first = _divided(x, preconditioning, eps, least, safety)
    if not x.size or not len(coefficients):
        return x
    rows, columns = x.shape[-2:]
    if gram or (gram is None and gram_takes_fewer(rows, columns, len(coefficients), x.dtype)):
        return _by_gram(x, first, coefficients)
    triples: Any = jnp.array([jnp.stack([jnp.asarray(c, x.real.dtype) for c in triple]) for triple in coefficients])
    if first is not None:
        x, triples = _step(x, first, triples[0]), triples[1:]
    return jax.lax.scan(lambda x, triple: (_step(x, _gram(x), triple), None), x, triples)[0]


def gram_takes_fewer(rows: int, columns: int, steps: int, dtype: Any = jnp.float32) -> bool:
    """Whether steps on A take fewer operations than steps on X; in units of rows^2."""
    on_x = steps * (rows + 2 * columns)
    on_a = sum((4 * n - 3) * rows + 2 * columns for n in map(len, _between_restarts(range(steps), dtype)))
    return on_a < on_x


def _step(x: Array, gram: Array, triple: Any) -> Array:
    a, b, c = (triple[i].astype(x.dtype) for i in range(3))
    return a * x + (b * gram + c * (gram @ gram)) @ x


def _gram(x: Array) -> Array:
    return x @ x.mT.conj()


def _by_gram(x: Array, gram: Array | None, triples: Sequence[Sequence[ArrayLike]]) -> Array:
    product = partial(jnp.matmul, precision="high")  # ten bits or more, also where the default is eight
    identity = jnp.expand_dims(jnp.asarray(np.eye(x.shape[-2]), x.dtype), range(x.ndim - 2))
    for part in _between_restarts(triples, x.dtype):
        gram = _gram(x) if gram is None else gram
        whole: Any = None
        for i, triple in enumerate(part):
            a, b, c = (jnp.asarray(number, x.real.dtype).astype(x.dtype) for number in triple)
            factor = a * identity + b * gram + c * product(gram, gram)
            whole = factor if whole is None else product(whole, factor)
            gram = product(product(factor, gram), factor) if i + 1 < len(part) else gram
        x, gram = whole @ x, None
    return x


def _between_restarts(steps: Sequence, dtype: Any) -> list[Sequence]:
    """The first two steps, and then three at a time, two where numbers have few bits."""
    n = 3 if jnp.finfo(dtype).nmant > 7 else 2
    return [steps[:2], *(steps[i : i + n] for i in range(2, len(steps), n))]


def _divided(
    x: Array, preconditioning: str, eps: ArrayLike, least: ArrayLike, safety: ArrayLike
) -> tuple[Array, Array | None]:
    """The matrices made small enough, and their A where it was needed for that."""
    real = x.real.dtype
    unit = _power_of_two(x)
    x = x / unit
    eps, least, safety = jnp.asarray(eps, real) / unit, jnp.asarray(least, real) / unit, jnp.asarray(safety, real)
    gram = None
    if preconditioning == "frobenius":
        size = _root(jnp.sum(jnp.square(x.real) + jnp.square(x.imag), axis=(-2, -1), keepdims=True))
    elif preconditioning == "spectral":
        size = jnp.linalg.svd(x, compute_uv=False)[..., :1, None] if x.size else jnp.ones((), real)
    else:
        gram = _gram(x)
        sizes = jnp.abs(gram)  # |A_ij|
        if preconditioning == "aol":
            size = _root(jnp.sum(sizes, axis=-1, keepdims=True))
        else:
            size = _root(_root(jnp.sum(jnp.square(sizes), axis=(-2, -1), keepdims=True)))
    size = jnp.maximum(safety * size + eps, least)
    scale = 1 / jnp.where(size > 0, size, 1)
    return x * scale, None if gram is None else gram * scale * scale.mT


def _power_of_two(x: Array) -> Array:
    """Of each matrix about its largest entry, in the last two dimensions 1: dividing by it rounds nothing."""
    limits = jnp.finfo(x.dtype)
    x = jax.lax.stop_gradient(x)
    parts = jnp.maximum(jnp.abs(x.real), jnp.abs(x.imag)) if jnp.iscomplexobj(x) else jnp.abs(x)
    largest = jnp.max(parts, axis=(-2, -1), keepdims=True, initial=0)
    largest = jnp.where(largest > 0, jnp.clip(largest, limits.tiny, limits.max / 4), 1)  # whose reciprocals are numbers
    return jax.lax.reduce_precision(largest, limits.nexp, 0)


def _root(square: Array) -> Array:
    """The square root of x >= 0, with derivative 0 at 0."""
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

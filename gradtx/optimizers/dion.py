"""Dion (Ahn et al., 2025): momentum whose leading directions, found by power iteration, are made orthogonal."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from gradtx import keys, leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import all_matrices, as_dimension_numbers
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation, Params, as_transformation, transformation
from gradtx.linalg.axes import Axes
from gradtx.linalg.matrices import map_stacks
from gradtx.moments import abs_sq, length
from gradtx.optimizers.adam import adamw
from gradtx.placement import in_place_of, zeros_of_axes
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, part, state, static, storage_dtype, whole


@state
class DionState(NamedTuple):
    """State of `scale_by_dion`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # M: what of the gradients was not stepped along yet, stored as `mu_dtype`
    q: Params  # Q: of each matrix a factor of size x rank, batch axes before, stored as `q_dtype`


def share(owner: str, name: str, x: Any) -> float:
    """A static number in (0, 1], which decides shapes."""
    x = number(within="(0, 1]").metadata["convert"](owner, name, x)
    if not isinstance(x, float):
        raise TypeError(f"`{owner}`: {name} is compiled in and must be a Python number, got {x!r}.")
    return x


@transformation
class scale_by_dion(GradientTransformation):
    """Makes a part of the momentum orthogonal: that in `rank` directions, which follow its largest singular vectors.

        M = M + g                                               from zero; Q from a normal distribution
        P = M Q, made orthonormal;   R = M^T P
        M = M - (1 - beta) P R^T                                what was stepped along decays; the rest stays
        Q = R, each column divided by its length + eps
        u = sqrt(outputs / inputs) P Q^T

    With all directions, and as much power iteration as it takes, P Q^T is U V^T, where M = U S V^T: Muon's step. What
    is left out of a step stays in M for later ones.

    Args:
      rank: the most directions; None, no bound.
      rank_fraction: directions as a fraction of the matrix's shorter side, in (0, 1]. 1/16 to 1 in the source.
      rank_multiple_of: that fraction is rounded up to a multiple of it, as far as the shorter side goes.
      beta: what is left of the part that was stepped along; in [0, 1]. The source's mu.
      eps: added to the lengths of R's columns, in units of the gradient; not negative.
      power_iters: how often P and R are computed, Q being R from the second on; at least 1.
      orthonormal: which side P has: the "longer" one (the outputs of a square matrix), which makes Q smaller, or the
        "outputs".
      weight_dimension_numbers: which axes are rows, the inputs, and columns, the outputs; see `scale_by_muon`.
      mu_dtype, q_dtype: storage of M and Q; None means float32 or wider.
      product_dtype: in what the products of real matrices are computed; None, float32 or wider. "bfloat16" for an
        accelerator. P's decomposition and the lengths are never computed in less than float32.
      key: an int, or a key of `jax.random`; for the first Q.

    Matrices of one shape are computed together, each whole on one device: see `linalg.matrices.map_stacks`. Between
    devices M travels, not P and R alone as in the source; to send those for the gradient is `powersgd`.

    State: 4 bytes per float32 parameter, and 4 rank for each entry of Q's side. Reads: gradients only.
    A direction in which M has nothing but rounding (of length sqrt(longer side) float32 roundings of the longest column
      of R) makes no step, and Q keeps its column: so M = 0 makes none, and a matrix of low rank none of noise.
    Derivative: P counts as given, since directions have none where singular values are equal.
    Raises:
      ValueError: a leaf is no matrix: it is named.
    Source: Ahn, Xu, Abreu, Langford, Dion: distributed orthonormalized updates, 2025, Algorithm 1 (arXiv:2504.05295),
      with P of the outputs; the authors' program has the "longer" side.
    Differs from the authors' code: directions of rounding make no step; P comes from Householder's decomposition, its
      `qr_method="qr"`, not from a random sketch.
    """

    rank: int | None = static(default=None, convert=lambda owner, name, x: _rank(owner, name, x))
    rank_fraction: float = static(default=1.0, convert=share)
    rank_multiple_of: int = whole(default=1, within="[1, inf)")
    beta: Hyperparameter = number(default=0.95, within="[0, 1]")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    power_iters: int = whole(default=1, within="[1, inf)")
    orthonormal: str = static(default="longer", one_of=("longer", "outputs"), kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    q_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    product_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)
    key: Any = part(default=0, convert=keys.checked)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params, is_leaf=paths.is_none)
        axes = enumerate(all_matrices(self.weight_dimension_numbers, params, self.name))
        q = [None if p is None else self._first(p, *next(axes)) for p in leaves]
        return DionState(start(), leafwise.zeros(params, self.mu_dtype), paths.unflatten(structure, q, params))

    def update(self, updates, state, params=None, **extra):
        beta, eps = at(state.count, self.beta, self.eps)
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        (_, mu), (_, q) = (paths.aligned(structure, x, updates) for x in (state.mu, state.q))
        present = [i for i, g in enumerate(leaves) if g is not None]
        axes = all_matrices(self.weight_dimension_numbers, updates, self.name)
        items = [(leaves[i], mu[i], q[i]) for i in present]
        turned = [self._turned(leaves[i], a) for i, a in zip(present, axes, strict=True)]
        found = map_stacks(self._step, items, [(a, a, _factor(a)) for a in turned], (beta, eps))
        for i, a, (u, *remembered) in zip(present, axes, found, strict=True):
            _, inputs, outputs = a.sizes(leaves[i].shape)
            leaves[i], (mu[i], q[i]) = u * math.sqrt(outputs / max(inputs, 1)), remembered
        outgoing, mu, q = (paths.unflatten(structure, x, updates) for x in (leaves, mu, q))
        return outgoing, DionState(tick(state.count), mu, q)

    def _step(self, stacks: tuple[Array, ...], beta: ArrayLike, eps: ArrayLike) -> tuple[Array, ...]:
        """The direction, M and Q of matrices with P's side as their rows."""
        g, m, q = stacks
        m = m + g
        if not m.size:
            return m, m, q
        adjoint = m.mT.conj()
        basis = lambda q: jax.lax.stop_gradient(jnp.linalg.qr(self._product(m, q))[0])
        again = lambda _, q: self._product(adjoint, basis(q))
        p = basis(jax.lax.fori_loop(1, self.power_iters, again, q) if self.power_iters > 1 else q)
        r = self._product(adjoint, p)
        columns, seen = _unit_columns(r, eps, max(m.shape[-2:]))
        remaining = m - (1 - beta) * self._product(p, r.mT.conj())
        return self._product(p, columns.mT.conj()), remaining, jnp.where(seen, columns, q)

    def _product(self, a: Array, b: Array) -> Array:
        if self.product_dtype is None or jnp.iscomplexobj(a):
            return jnp.matmul(a, b, precision="highest")  # on a GPU the default has 10 bits
        narrow = jnp.dtype(self.product_dtype)
        return jnp.matmul(a.astype(narrow), b.astype(narrow), preferred_element_type=a.dtype)

    def _first(self, p: Array, place: int, axes: Axes) -> Array:
        """Q before the first update, beside a parameter, drawn by its place among them."""
        axes = self._turned(p, axes)
        _, m, n = axes.sizes(p.shape)
        zero = leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), self.q_dtype)
        batch = [p.shape[i] for i in axes.batch]
        made_of = [*[(i,) for i in axes.batch], axes.columns, ()]
        zeros = zeros_of_axes(
            p,
            made_of,
            shape=(*batch, n, self._rank(m, n)),
            dtype=zero.dtype,
            along={len(batch): axes.rows + axes.columns},
        )
        drawn = jax.random.normal(jax.random.fold_in(keys.typed(self.key), place), zeros.shape, zeros.dtype)
        return in_place_of(zeros, drawn)

    def _rank(self, m: int, n: int) -> int:
        shorter, step = min(m, n), self.rank_multiple_of
        found = step * math.ceil(self.rank_fraction * shorter / step)
        return min(found, shorter) if self.rank is None else min(found, shorter, self.rank)

    def _turned(self, p: Array, axes: Axes) -> Axes:
        """The axes with P's side as the rows."""
        _, inputs, outputs = axes.sizes(p.shape)
        return axes if self.orthonormal == "longer" and inputs > outputs else axes.transposed


def _rank(owner: str, name: str, x: Any) -> int | None:
    return None if x is None else whole(within="[1, inf)").metadata["convert"](owner, name, x)


def _factor(axes: Axes) -> Axes:
    n = len(axes.batch)
    return Axes(tuple(range(n)), ((n,), (n + 1,)))


def _unit_columns(r: Array, eps: ArrayLike, longer: int) -> tuple[Array, Array]:
    """The columns of R divided by their lengths + eps, 0 where they are of rounding; and which are not."""
    largest = jnp.max(jnp.abs(r), axis=(-2, -1), keepdims=True)  # so that no square overflows
    largest = jnp.where(largest > 0, largest, 1)
    r = r / largest
    size = length(jnp.sum(abs_sq(r), axis=-2, keepdims=True))
    rounding = math.sqrt(longer) * jnp.finfo(r.dtype).eps * jnp.max(size, axis=-1, keepdims=True)
    seen = size > rounding
    return jnp.where(seen, r / jnp.where(seen, size + eps / largest, 1), 0), seen


def dion(
    learning_rate: Hyperparameter,
    rank: int | None = None,
    rank_fraction: float = 1.0,
    rank_multiple_of: int = 1,
    beta: Hyperparameter = 0.95,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.01,
    weight_decay_mask: Any = None,
    *,
    others: Any = None,
    others_mask: Any = None,
    power_iters: int = 1,
    orthonormal: str = "longer",
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
    q_dtype: DTypeLike | None = None,
    product_dtype: DTypeLike | None = None,
    key: Any = 0,
) -> GradientTransformation:
    """Dion for matrices, another method for all else: `matrices_and_others`. Other arguments: `scale_by_dion`.

        W <- W (1 - learning_rate weight_decay) - learning_rate sqrt(outputs / inputs) P Q^T

    Args:
      learning_rate: of a step that changes the root mean square of a layer's output by about as much as its input has.
      weight_decay: fraction of a matrix removed per update, before the learning rate multiplies it. Not negative.
      weight_decay_mask: which matrices decay; None, all. See `add_decayed_weights`.
      others: a transformation for what is no matrix. None: `adamw` with the same learning rate and decay, b1 0.9 and
        b2 0.95.
      others_mask: which matrices are others all the same, such as `["embedding", "lm_head"]`; see `matrix_labels`.
      weight_dimension_numbers: None: parameters of two dimensions are matrices. Else those that have dimension numbers.

    Reads: params.
    Source: Ahn, Xu, Abreu, Langford, 2025 (arXiv:2504.05295).
    """
    for_matrices = chain(
        scale_by_dion(
            rank, rank_fraction, rank_multiple_of, beta, eps, power_iters, orthonormal=orthonormal,
            weight_dimension_numbers=weight_dimension_numbers, mu_dtype=mu_dtype, q_dtype=q_dtype,
            product_dtype=product_dtype, key=key,
        ),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
    if others is None:
        others = adamw(learning_rate, 0.9, 0.95, weight_decay=weight_decay)
    return matrices_and_others(
        for_matrices, as_transformation("dion", "others", others), weight_dimension_numbers, others_mask
    )

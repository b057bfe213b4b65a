"""Dion2 (Ahn et al., 2025): of each matrix of momentum only the largest rows are made orthogonal at a time."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import all_matrices, as_dimension_numbers
from gradtx.combine.matrices import matrices_and_others
from gradtx.core import GradientTransformation, Params, as_transformation, transformation
from gradtx.linalg.axes import Axes
from gradtx.linalg.matrices import map_stacks
from gradtx.moments import abs_sq, ema, length
from gradtx.optimizers.adam import adamw
from gradtx.optimizers.dion import share
from gradtx.placement import zeros_of_axes
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.orthogonalize import as_orthogonalizer, newton_schulz
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.shape import scale_by_shape
from gradtx.types import Means
from gradtx.value import number, state, static, storage_dtype

POLAR_EXPRESS = newton_schulz("polar_express", eps=1e-8)
FLOOR = 1e-8  # added to the root of nu, which is about 1 / sqrt(columns)


@state
class Dion2State(NamedTuple):
    """State of `scale_by_dion2`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # M: the sum of g, as far as it was not stepped along, stored as `mu_dtype`
    nu: Params | None  # running mean of a direction's squares, a number for each row; None without b2


@transformation
class scale_by_dion2(GradientTransformation):
    """Makes the largest rows of the momentum orthogonal; the others wait until they are the largest.

        M = M + g                                               from zero
        S = the ceil(fraction rows) rows of M with the largest sums of |entries|
        u_S = U V^T,  where M_S = U S V^T;   u = 0 in the other rows
        M_S = beta M_S

    With b2, as in NorMuon, in the rows S:

        nu = b2 nu + (1 - b2) mean(|u|^2)                       of each row, from zero
        u = u / (sqrt(nu) + 1e-8),  then made as long as it was

    So a step costs as little as Muon's of a matrix of those rows alone. What is left out stays in M for later steps.

    Args:
      fraction: of the rows, in (0, 1]; at least one row.
      beta: what is left of the rows that were stepped along; in [0, 1].
      b2: decay of nu, in [0, 1). None: no nu.
      select: which side the rows are: the "shorter" one (the outputs of a square matrix), or the "outputs".
      orthogonalizer: what makes U V^T of matrices; see `orthogonalize`.
      weight_dimension_numbers: which axes are the inputs and the outputs; see `scale_by_muon`.
      mu_dtype: storage of M; None means float32 or wider.

    State: 4 bytes per float32 parameter, and with b2 4 per row. Reads: gradients only. Of rows that are equally large
      the first is taken. Where M is 0, u is 0.
    Raises:
      ValueError: a leaf is no matrix: it is named.
    Source: Ahn et al., Dion2, 2025 (arXiv:2512.16928); with b2, NorDion2 in the authors' program.
    Differs from the authors' code: rows are always chosen from the whole matrix, also where devices hold parts of it,
      and then whole matrices travel.
    """

    fraction: float = static(default=0.25, convert=share)
    beta: Hyperparameter = number(default=0.95, within="[0, 1]")
    b2: Hyperparameter | None = number(default=None, within="[0, 1)", optional=True)
    select: str = static(default="shorter", one_of=("shorter", "outputs"), kw_only=True)
    orthogonalizer: Any = static(default=POLAR_EXPRESS, convert=as_orthogonalizer, kw_only=True)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers, kw_only=True)
    mu_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        axes, nu = iter(self._axes(params)), None
        if self.b2 is not None:
            leaves, structure = jax.tree.flatten(params, is_leaf=paths.is_none)
            nu = paths.unflatten(structure, [None if p is None else _for_rows(p, next(axes)) for p in leaves], params)
        return Dion2State(start(), leafwise.zeros(params, self.mu_dtype), nu)

    def update(self, updates, state, params=None, **extra):
        operands = at(state.count, self.beta, *([] if self.b2 is None else [self.b2]))
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        slots = [state.mu] if self.b2 is None else [state.mu, state.nu]
        columns = [leaves, *(paths.aligned(structure, x, updates)[1] for x in slots)]
        present = [i for i, g in enumerate(leaves) if g is not None]
        axes = [(a, a, _rows_alone(a))[: len(columns)] for a in self._axes(updates)]
        found = map_stacks(self._step, [[column[i] for column in columns] for i in present], axes, operands)
        for i, arrays in zip(present, found, strict=True):
            for column, x in zip(columns, arrays, strict=True):
                column[i] = x
        outgoing, mu, *nu = (paths.unflatten(structure, column, updates) for column in columns)
        return outgoing, Dion2State(tick(state.count), mu, *(nu or [None]))

    def _step(self, stacks: tuple[Array, ...], beta: Any, *decay: Any) -> tuple[Array, ...]:
        """The direction, M and nu of matrices whose first side is that of the rows."""
        g, m, *nu = stacks
        m = m + g
        if not m.size:
            return m, m, *nu
        most = max(1, math.ceil(self.fraction * m.shape[1]))
        _, places = jax.lax.top_k(jnp.sum(jnp.abs(m), axis=2), most)
        some = jnp.take_along_axis(m, places[:, :, None], axis=1)
        u = self._orthogonal(some)
        if decay:
            mean = jnp.sum(abs_sq(u), axis=2) * (1 / u.shape[2])
            squares = ema(jnp.take_along_axis(nu[0], places, axis=1), mean, decay[0])
            nu = [_put(nu[0], places, squares)]
            u = _as_long_as(u / (length(squares) + FLOOR)[:, :, None], u)
        return _put(jnp.zeros_like(m), places, u), _put(m, places, beta * some), *nu

    def _orthogonal(self, x: Array) -> Array:
        """With at most as many rows as columns, as an orthogonalizer may expect."""
        dtype = getattr(self.orthogonalizer, "dtype", None)
        narrow = x if dtype is None or jnp.iscomplexobj(x) else x.astype(dtype)
        found = self.orthogonalizer(narrow.mT).mT if x.shape[1] > x.shape[2] else self.orthogonalizer(narrow)
        return found.astype(x.dtype)

    def _axes(self, params: Params) -> list[Axes]:
        """Of each leaf the axes, the side of the rows first."""
        found = all_matrices(self.weight_dimension_numbers, params, self.name)
        return [self._turned(p, a) for p, a in zip(jax.tree.leaves(params), found, strict=True)]

    def _turned(self, p: Array, axes: Axes) -> Axes:
        _, inputs, outputs = axes.sizes(p.shape)
        return axes if self.select == "shorter" and inputs < outputs else axes.transposed


def _rows_alone(axes: Axes) -> Axes:
    n = len(axes.batch)
    return Axes(tuple(range(n)), ((n,),))


def _for_rows(p: Array, axes: Axes) -> Array:
    """Zeros, one for each row, batch axes before."""
    dtype = leafwise.zeros(jax.ShapeDtypeStruct((), jnp.finfo(p.dtype).dtype)).dtype
    return zeros_of_axes(p, [*[(i,) for i in axes.batch], axes.rows], dtype=dtype)


def _put(x: Array, places: Array, rows: Any) -> Array:
    """The stack with other rows in some places of each matrix."""
    return x.at[jnp.arange(len(x))[:, None], places].set(rows)


def _as_long_as(x: Array, like: Array) -> Array:
    """Each matrix scaled to the Frobenius norm of another; 0 stays."""
    mine, wanted = (length(jnp.sum(abs_sq(y), axis=(1, 2), keepdims=True)) for y in (x, like))
    return x * (wanted / jnp.where(mine > 0, mine, 1))


def dion2(
    learning_rate: Hyperparameter,
    fraction: float = 0.25,
    beta: Hyperparameter = 0.95,
    b2: Hyperparameter | None = None,
    weight_decay: Hyperparameter = 0.01,
    weight_decay_mask: Any = None,
    *,
    others: Any = None,
    others_mask: Any = None,
    select: str = "shorter",
    consistent_rms: Hyperparameter | None = None,
    shape_rule: Any = "spectral",
    orthogonalizer: Any = POLAR_EXPRESS,
    weight_dimension_numbers: Any = None,
    mu_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Dion2 for matrices, another method for all else: `matrices_and_others`. Other arguments: `scale_by_dion2`.

        W <- W (1 - learning_rate weight_decay) - learning_rate sqrt(outputs / inputs) u

    Args:
      learning_rate: of a step that changes the root mean square of a layer's output by about as much as its input has.
      weight_decay: fraction of a matrix, also of its rows that wait, removed per update, before the learning rate
        multiplies it. Not negative.
      weight_decay_mask: which matrices decay; None, all. See `add_decayed_weights`.
      others: a transformation for what is no matrix. None: `adamw` with the same learning rate and decay, b1 0.9 and
        b2 0.95.
      others_mask: which matrices are others all the same, such as `["embedding", "lm_head"]`; see `matrix_labels`.
      consistent_rms, shape_rule: of the whole matrix, as `consistent_rms` and `rule` of `scale_by_shape`.
      weight_dimension_numbers: None: parameters of two dimensions are matrices. Else those that have dimension numbers.

    Reads: params.
    Source: Ahn et al., Dion2, 2025 (arXiv:2512.16928).
    """
    numbers = weight_dimension_numbers
    for_matrices = chain(
        scale_by_dion2(
            fraction, beta, b2,
            select=select, orthogonalizer=orthogonalizer, weight_dimension_numbers=numbers, mu_dtype=mu_dtype,
        ),
        scale_by_shape(numbers, consistent_rms, rule=shape_rule),
        add_decayed_weights(weight_decay, weight_decay_mask),
        scale_by_learning_rate(learning_rate),
    )  # fmt: skip
    if others is None:
        others = adamw(learning_rate, 0.9, 0.95, weight_decay=weight_decay)
    return matrices_and_others(for_matrices, as_transformation("dion2", "others", others), numbers, others_mask)


def nordion2(
    learning_rate: Hyperparameter,
    fraction: float = 0.25,
    beta: Hyperparameter = 0.95,
    b2: Hyperparameter = 0.95,
    *,
    select: str = "outputs",
    **arguments: Any,
) -> GradientTransformation:
    """`dion2` of the outputs, each normalized over time as in NorMuon. Other arguments: `dion2`.

    Args:
      b2: decay of the running mean of an output's squares, in [0, 1).

    Source: NorDion2 in the program of Ahn et al., 2025 (arXiv:2512.16928).
    """
    return dion2(learning_rate, fraction, beta, b2, select=select, **arguments)

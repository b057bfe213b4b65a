"""Neurons of equal size, before or after a matrix is made orthogonal. A neuron is one output, with its weights."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, start, tick
from gradtx.combine.dimensions import as_dimension_numbers, divided, undivided
from gradtx.core import EmptyState, GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, length, root
from gradtx.paths import plain
from gradtx.placement import zeros_of_axes
from gradtx.reductions import summed
from gradtx.value import number, state, static


@transformation
class equalize_neurons(GradientTransformation):
    """Scales the gradient of each output neuron to the root mean square of all neurons' lengths: MuonEq's row form.

        u_i = g_i (|g| / sqrt(columns)) / |g_i|         g_i: column i of x W, all inputs of output i

    It goes before `orthogonalize`. A neuron that is 0 stays 0. Where the squares of a matrix overflow, or one is NaN,
    it stays as it is.

    Args:
      weight_dimension_numbers: which axes are rows, the inputs, and columns, the outputs; see `scale_by_muon`.

    State: none. Reads: updates only.
    Source: MuonEq, 2026 (arXiv:2603.28254), where outputs are rows.
    """

    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)

    def init(self, params):
        divided(self.weight_dimension_numbers, params, self.name)
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        def leaf(g, axes):
            _, _, columns = axes.sizes(g.shape)
            every = axes.rows + axes.columns
            squares, square = yield from summed((abs_sq(g), axes.rows), (abs_sq(g), every))
            mean = length(square) * (1 / math.sqrt(max(columns, 1)))
            return (g * _ratio(jnp.expand_dims(mean, every), jnp.expand_dims(length(squares), axes.rows)),)

        (updates,) = _by_matrix(leaf, self.weight_dimension_numbers, self.name, updates)
        return updates, state


@state
class NormalizeNeuronsState(NamedTuple):
    """State of `normalize_neurons`."""

    count: Array  # int32 scalar: updates made so far
    nu: Params  # running mean square of each neuron's updates, real, float32 or wider; without the axes of the rows


@transformation
class normalize_neurons(GradientTransformation):
    """Divides the updates of each output neuron by their running root mean square; the norm of the matrix stays.

        nu = b2 nu + (1 - b2) mean(|g|^2, rows)         from zero; one number for each column of x W
        v = g / (sqrt(nu) + eps)
        u = v |g| / |v|                                 Frobenius norms, of each matrix

    After `orthogonalize` it is NorMuon. That nu starts at zero matters to eps alone. A matrix that is 0 stays 0.

    Args:
      b2: decay of nu, in [0, 1).
      eps: in units of the updates. Not negative.
      weight_dimension_numbers: which axes are rows, the inputs, and columns, the outputs; see `scale_by_muon`.

    State: 4 bytes per column of a matrix. Reads: updates only.
    Source: Li et al., NorMuon, 2025 (arXiv:2510.05491), Algorithm 1, where outputs are rows. There the norm becomes 0.2
      sqrt(rows columns), as by `equalize_matrices`; here it stays, as in the authors' code, so that `scale_by_shape`
      can follow.
    """

    b2: Hyperparameter = number(default=0.95, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)

    def init(self, params):
        def slot(p, axes):
            left = [(i,) for i in range(p.ndim) if i not in axes.rows]
            return zeros_of_axes(p, left, dtype=jnp.finfo(leafwise.wide_dtype(p)).dtype)

        parts = divided(self.weight_dimension_numbers, params, self.name)
        return NormalizeNeuronsState(
            start(), jax.tree.structure(plain(params)).unflatten([slot(*part) for part in parts])
        )

    def update(self, updates, state, params=None, **extra):
        b2, eps = at(state.count, self.b2, self.eps)

        def leaf(g, nu, axes):
            _, rows, _ = axes.sizes(g.shape)
            (squares,) = yield from summed((abs_sq(g), axes.rows))
            nu = ema(nu, squares * (1 / max(rows, 1)), b2)
            scale = 1 / (root(nu) + eps)
            columns = tuple(i - sum(j < i for j in axes.rows) for i in axes.columns)
            before, after = yield from summed((squares, columns), (squares * jnp.square(scale), columns))
            scale *= jnp.expand_dims(_ratio(length(before), length(after)), columns)
            return g * jnp.expand_dims(scale, axes.rows), nu

        updates, nu = _by_matrix(leaf, self.weight_dimension_numbers, self.name, updates, state.nu)
        return updates, NormalizeNeuronsState(tick(state.count), nu)


@transformation
class equalize_matrices(GradientTransformation):
    """Scales each matrix of the updates to the length of an orthogonal one, or to one root mean square.

        u = g sqrt(min(rows, columns)) / (|g| + eps)          the Frobenius norm
        u = g rms sqrt(rows columns) / (|g| + eps)            with rms

    After `orthogonalize`, whose singular values are only about 1, it is Muon+. Where |g| + eps is 0, u is 0; where the
    squares overflow, or one is NaN, the matrix stays as it is.

    Args:
      weight_dimension_numbers: which axes are rows and columns; see `scale_by_muon`.
      rms: None, or not negative.
      eps: in units of the updates. Not negative.

    State: the time. Reads: updates only.
    Source: Muon+, 2026 (arXiv:2602.21545).
    """

    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)
    rms: Hyperparameter | None = number(default=None, within="[0, inf)", optional=True)
    eps: Hyperparameter = number(default=0.0, within="[0, inf)", kw_only=True)

    def update(self, updates, state, params=None, **extra):
        (eps,) = at(state.count, self.eps)
        (rms,) = (None,) if self.rms is None else at(state.count, self.rms)

        def leaf(g, axes):
            _, rows, columns = axes.sizes(g.shape)
            (square,) = yield from summed((abs_sq(g), axes.rows + axes.columns))
            wanted = math.sqrt(min(rows, columns)) if rms is None else math.sqrt(rows * columns) * rms
            size = jnp.where(square > 0, length(square) + eps, square)  # of zeros 0: their slope would be 1 / eps
            return (g * jnp.expand_dims(_ratio(wanted, size), axes.rows + axes.columns),)

        (updates,) = _by_matrix(leaf, self.weight_dimension_numbers, self.name, updates)
        return updates, ClockState(tick(state.count))


def _ratio(a: Any, b: Array) -> Array:
    """a / b; 1 where that is no number: where b is 0, infinite or NaN."""
    usable = (b > 0) & jnp.isfinite(b)
    return jnp.where(usable, a / jnp.where(usable, b, 1), 1)


def _by_matrix(leaf: Callable, numbers: Any, owner: str, updates: Any, *slots: Any) -> tuple:
    """A formula of an array that holds matrices, of its slots and of its axes: the updates, and each slot anew."""
    parts = divided(numbers, updates, owner)
    arrays = jax.tree.structure(updates).unflatten([x for x, _ in parts])
    axes = jax.tree.structure(plain(updates)).unflatten([a for _, a in parts])
    found, *new = leafwise.unzip_map(leaf, arrays, *slots, axes, outputs=1 + len(slots))
    return leafwise.map(undivided, found, updates), *new

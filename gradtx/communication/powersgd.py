"""PowerSGD (Vogels et al., 2019): gradients of low rank, found by one step of power iteration, with error feedback."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import collectives, keys, leafwise, paths
from gradtx.collectives import Axis, as_axis, names, require_unreduced, size
from gradtx.combine.dimensions import as_dimension_numbers, matrix_axes
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.formulas import alike
from gradtx.linalg.axes import Axes, as_matrices, from_matrices
from gradtx.placement import laid_like, sharding_of, whole_everywhere, zeros_of_axes
from gradtx.value import part, state, static, whole

_product = partial(jnp.einsum, precision="highest")  # on a GPU the default has 10 bits


@state
class PowerSGDState(NamedTuple):
    """State of `powersgd`. Of what is sent whole both are None."""

    error: Params  # of each device: the sum of g that was not sent yet, in float32 or wider
    q: Params  # of each matrix the n x rank factor of the last update, the same on all devices


@transformation
class powersgd(GradientTransformation):
    """Replaces each matrix of the updates by an approximation of low rank of its mean over the devices.

        M = g + e                            of each device; e from zero, Q from a normal distribution
        P = mean over devices of M Q,        made orthonormal
        Q = mean over devices of M^T P
        u = P Q^T;    e = M - u

    So u is the mean of M, projected onto `rank` directions that follow its largest singular vectors from step to step.
    What is no matrix, and a matrix for which P and Q have as many entries, is sent whole: u is the mean of g.

    Args:
      rank: at least 1. The source has 1 to 4.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which the mean is taken. None: there is
        one device.
      weight_dimension_numbers: which axes are rows and columns, as in `scale_by_muon`. None: parameters of two
        dimensions are matrices.
      key: an int, or a key of `jax.random`, the same on all devices; for the first Q.

    Sends: 4 rank (m + n) bytes per m x n matrix, and vectors, in two rounds of all-reduces; XLA joins those of a
      round if it can (on the CPU not those of the second).
    State: 4 bytes per entry of such a matrix, which differ from device to device, and 4 rank n. Reads: each device's
      own gradients, which nothing has summed (`gradtx.parallel.varying`). NaN stays in the state: put
      `apply_if_finite` around, with the same axis.
    Derivative: P counts as given, since directions have none where singular values are equal.
    Source: Vogels, Karimireddy, Jaggi, PowerSGD, NeurIPS 2019, Algorithms 1 and 2 (arXiv:1905.13727), e as in the
      authors' program. Its momentum is a `trace` after `powersgd`.
    Differs from the source: P is made orthonormal by a QR decomposition, which gives the same u; a column of Q that
      would become 0 stays as it was, so that a gradient that was 0 once is seen later.
    """

    rank: int = whole(within="[1, inf)")
    axis: Axis = static(default=None, convert=as_axis)
    weight_dimension_numbers: Any = static(default=None, convert=as_dimension_numbers)
    key: Any = part(default=0, convert=keys.checked)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params)
        error: list[Any] = [None] * len(leaves)
        q: list[Any] = [None] * len(leaves)
        for i, axes in self._matrices(params).items():
            p = leaves[i]
            error[i] = collectives.varying(leafwise.zeros(p), self.axis)
            (matrices, _, n), dtype = axes.sizes(p.shape), error[i].dtype
            made_of = [axes.batch, axes.columns, ()]
            zeros = zeros_of_axes(p, made_of, shape=(matrices, n, self._rank(p.shape, axes)), dtype=dtype)
            drawn = jax.random.normal(jax.random.fold_in(keys.typed(self.key), i), zeros.shape, dtype)
            place = sharding_of(zeros)
            q[i] = jax.device_put(drawn, place) if place is not None and zeros.committed else zeros + drawn
        return PowerSGDState(*(paths.unflatten(structure, x, params) for x in (error, q)))

    def update(self, updates, state, params=None, **extra):
        require_unreduced(updates, self.axis)
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        error, stored = (paths.aligned(structure, x, updates)[1] for x in state)
        present = [i for i, g in enumerate(leaves) if g is not None]
        axes = {present[i]: x for i, x in self._matrices(updates).items()}
        sent = [i for i in present if i not in axes]
        totals = [leaves[i] + error[i] for i in axes]
        matrices = [as_matrices(whole_everywhere(x), a) for x, a in zip(totals, axes.values(), strict=True)]
        old = [whole_everywhere(stored[i]) for i in axes]

        products = alike(lambda m, q: _product("bmn,bnr->bmr", m, q), list(zip(matrices, old, strict=True)))
        means = self._means([*products, *(leaves[i] for i in sent)])
        p = alike(_orthonormal, [(x,) for x in means[: len(axes)]])
        q = self._means(alike(lambda m, p: _product("bmn,bmr->bnr", m.conj(), p), list(zip(matrices, p, strict=True))))
        approximations = alike(lambda p, q: _product("bmr,bnr->bmn", p, q.conj()), list(zip(p, q, strict=True)))

        for i, mean in zip(sent, means[len(axes) :], strict=True):
            leaves[i] = mean
        for i, total, u, new, last in zip(axes, totals, approximations, q, old, strict=True):
            leaves[i] = laid_like(from_matrices(u, axes[i], total.shape), total)
            error[i] = total - leaves[i]
            stored[i] = laid_like(jnp.where(jnp.any(new != 0, axis=1, keepdims=True), new, last), stored[i])
        outgoing, *state = (paths.unflatten(structure, x, updates) for x in (leaves, error, stored))
        return outgoing, PowerSGDState(*state)

    def _means(self, arrays: list[Array]) -> list[Array]:
        """Over the devices, of all arrays together."""
        if self.axis is None or not arrays:
            return arrays
        share = 1 / size(self.axis)
        return [x * share for x in jax.lax.psum(arrays, names(self.axis))]

    def _matrices(self, params: Params) -> dict[int, Axes]:
        """The axes of the leaves that are sent as two factors, by their place."""
        shapes = [jnp.shape(p) for p in jax.tree.leaves(params)]
        found = enumerate(zip(matrix_axes(self.weight_dimension_numbers, params, self.name), shapes, strict=True))
        return {i: axes for i, (axes, shape) in found if axes is not None and self._saves(shape, axes)}

    def _saves(self, shape: tuple[int, ...], axes: Axes) -> bool:
        _, m, n = axes.sizes(shape)
        return self._rank(shape, axes) * (m + n) < m * n

    def _rank(self, shape: tuple[int, ...], axes: Axes) -> int:
        return min(self.rank, *axes.sizes(shape)[1:])


def _orthonormal(p: Array) -> Array:
    """Orthonormal columns that span those of each matrix, and others where there are fewer."""
    return jnp.linalg.qr(jax.lax.stop_gradient(p))[0]

"""GaLore (Zhao et al., 2024): moments of a low-rank projection of each matrix's gradient."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, start, tick, time
from gradtx.combine.chain import chain
from gradtx.combine.dimensions import as_dimension_numbers, matrix_axes
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.linalg.axes import Axes, as_matrices, from_matrices
from gradtx.optimizers.adam import scale_by_adam
from gradtx.partial import FUNCTIONS
from gradtx.placement import differing_like, laid_like, whole_everywhere, zeros_of_axes
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, part, state, static, storage_dtype, whole


@state
class GaLoreDimensionNumbers(NamedTuple):
    """Which axes of a parameter are the rows and the columns of its matrix; those not named hold several matrices."""

    reduction_axis: int | Sequence[int] = 0  # the rows: the input of x W
    output_axis: int | Sequence[int] = 1  # the columns: its output


@state
class GaLoreState(NamedTuple):
    """State of `scale_by_galore`."""

    count: Array  # int32 scalar: updates made so far
    base_optimizer_state: State  # the base optimizer's own, of the projected gradients
    projector: Params  # P of each matrix; None for what is none


@dataclass(frozen=True, repr=False)
class _everywhere:
    """Dimension numbers for every parameter that has two dimensions or more."""

    numbers: tuple

    def __call__(self, params: Params) -> Any:
        return jax.tree.map(lambda p: self.numbers if p.ndim > 1 else None, params)

    def __repr__(self) -> str:
        return repr(self.numbers)


def _numbers(owner: str, name: str, numbers: Any) -> Any:
    if isinstance(numbers, tuple) and hasattr(numbers, "reduction_axis"):
        return _everywhere(numbers)
    return as_dimension_numbers(owner, name, numbers)


def _base(owner: str, name: str, tx: Any) -> GradientTransformation:
    return scale_by_adam() if tx is None else as_transformation(owner, name, tx)


@transformation
class scale_by_galore(GradientTransformation):
    """Lets another transformation work on a low-rank projection of each matrix's gradient, and projects back.

        P = the `rank` first singular vectors of g, on its longer side        at every `update_proj_gap`-th update
        m >= n:  P is m x rank,   R = P^T g,    u = scale P base(R)
        m < n:   P is n x rank,   R = g P,      u = scale base(R) P^T

    So the base optimizer's moments are of `rank` times the shorter side's entries. They are not turned when P changes.

    Args:
      rank: at least 1; that of a smaller matrix is its shorter side.
      update_proj_gap: after how many updates P is computed anew, at least 1. That is a singular value decomposition of
        each matrix.
      scale: what the projected updates are multiplied by.
      base_optimizer: a transformation of gradients, or a foreign `(init, update)` pair; None, `scale_by_adam()`. It is
        given no parameters, which have other shapes: weight decay has its place in `galore`.
      weight_dimension_numbers: which axes are rows and columns. None: parameters of two dimensions are matrices, and
        others are the base optimizer's as they are. Or `GaLoreDimensionNumbers` for all that have two dimensions or
        more, a pytree of them and of None, or a function from the parameters' shapes to one.
      projector_dtype: storage of P; None means float32 or wider.

    State: per m x n matrix rank times the longer side's numbers, and the base optimizer's state of rank times the
      shorter side's. Reads: gradients only.
    Derivative: P counts as given, since singular vectors have none where singular values are equal.
    Source: Zhao et al., GaLore, ICML 2024, Algorithm 1 (arXiv:2403.03507).
    Differs from Optax: P is None for what is no matrix, computed in float32 or wider, and right for complex gradients;
      axes that are neither rows nor columns hold several matrices; the base optimizer is given extra arguments, and may
      be scheduled.
    """

    rank: int = whole(default=128, within="[1, inf)")
    update_proj_gap: int = number(default=200, within="[1, inf)", integer=True)
    scale: Hyperparameter = number(default=1.0)
    base_optimizer: GradientTransformation = part(default=None, convert=_base)
    weight_dimension_numbers: Any = static(default=None, convert=_numbers)
    projector_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def init(self, params):
        leaves, structure = jax.tree.flatten(params)
        rows = list(zip(leaves, self._axes(params), strict=True))

        def zeros(p, axes, which, dtype=None):
            entry = leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), dtype)
            shape, made_of = self._shapes(p.shape, axes)[which]
            return zeros_of_axes(p, made_of, shape=shape, dtype=entry.dtype)

        proxies = structure.unflatten(p if axes is None else zeros(p, axes, 1) for p, axes in rows)
        projector = [None if axes is None else zeros(p, axes, 0, self.projector_dtype) for p, axes in rows]
        return GaLoreState(start(), self.base_optimizer.bare_init(proxies), structure.unflatten(projector))

    def update(self, updates, state, params=None, **extra):
        (scale,) = at(state.count, self.scale)
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        _, stored = paths.aligned(structure, state.projector, updates)
        present = [i for i, g in enumerate(leaves) if g is not None]
        axes = {i: x for i, x in zip(present, self._axes(updates), strict=True) if x is not None}
        place = {i: _as_it_lies if all(len(group) < 2 for group in x) else whole_everywhere for i, x in axes.items()}
        stacks = [as_matrices(place[i](leaves[i]), x) for i, x in axes.items()]
        old = [place[i](stored[i]).reshape(-1, *stored[i].shape[-2:]) for i in axes]
        now = state.count % self.update_proj_gap == 0
        new = jax.lax.cond(now, lambda: self._vectors(stacks, old), lambda: [differing_like(p, now) for p in old])
        low = list(leaves)
        for (i, x), g, p in zip(axes.items(), stacks, new, strict=True):
            projected = _product("kmr,kmn->krn", p.conj(), g) if _is_tall(g) else _product("kmn,knr->kmr", g, p)
            low[i] = projected.reshape(self._shapes(leaves[i].shape, x)[1][0])
        unneeded = (*FUNCTIONS, "grad")  # of parameters in their own shapes
        extra = {name: x for name, x in extra.items() if name not in unneeded}
        with time(state.count):
            base = self.base_optimizer.bare_update(
                paths.unflatten(structure, low, updates), state.base_optimizer_state, None, **extra
            )
        outgoing = paths.aligned(structure, base[0], updates)[1]
        for (i, x), g, p in zip(axes.items(), stacks, new, strict=True):
            u = place[i](outgoing[i]).reshape(-1, *outgoing[i].shape[-2:])
            u = _product("kmr,krn->kmn", p, u) if _is_tall(g) else _product("kmr,knr->kmn", u, p.conj())
            outgoing[i] = laid_like(from_matrices(scale * u, x, leaves[i].shape), leaves[i])
            stored[i] = laid_like(p.reshape(stored[i].shape), stored[i])
        projector = paths.unflatten(structure, stored, updates)
        return paths.unflatten(structure, outgoing, updates), GaLoreState(tick(state.count), base[1], projector)

    def _axes(self, params: Params) -> list[Axes | None]:
        """Of each leaf the axes of its matrices; None where it has none, or no entries."""
        found = matrix_axes(self.weight_dimension_numbers, params, self.name)
        return [axes if p.size else None for axes, p in zip(found, jax.tree.leaves(params), strict=True)]

    def _shapes(self, shape: tuple[int, ...], axes: Axes) -> tuple[tuple, tuple]:
        """The shapes of P and of R, each with the axes that its dimensions are made of."""
        matrices, m, n = axes.sizes(shape)
        rank, batch, (rows, columns) = (min(self.rank, m, n), ()), axes.batch, axes.sides
        longer, low = ((m, rows), [rank, (n, columns)]) if m >= n else ((n, columns), [(m, rows), rank])
        several = [(matrices, batch)] if batch else []
        p, r = (tuple(zip(*several, *dims, strict=True)) for dims in ([longer, rank], low))
        return p, r

    def _vectors(self, stacks: list[Array], like: list[Array]) -> list[Array]:
        """P of each matrix."""

        def longer(g):
            u, _, vh = jnp.linalg.svd(jax.lax.stop_gradient(whole_everywhere(g)), full_matrices=False)
            return u if _is_tall(g) else vh.mT.conj()

        found = [longer(g)[..., : old.shape[-1]].astype(old.dtype) for g, old in zip(stacks, like, strict=True)]
        return [laid_like(p, old) for p, old in zip(found, like, strict=True)]


def _is_tall(g: Array) -> bool:
    return g.shape[-2] >= g.shape[-1]


def _as_it_lies(x: Array) -> Array:
    return x


def _product(form: str, a: Array, b: Array) -> Array:
    """`jnp.einsum`, each axis of the product sharded as it is in a or b, where types tell."""
    *letters, out = form.replace("->", ",").split(",")
    specs = [jax.typeof(x).sharding.spec for x in (a, b)]
    pairs = [pair for names, spec in zip(letters, specs, strict=True) for pair in zip(names, spec, strict=False)]
    axes = {name: along for name, along in pairs if along}
    place = NamedSharding(jax.typeof(a).sharding.mesh, PartitionSpec(*map(axes.get, out))) if axes else None
    return jnp.einsum(form, a, b, precision="highest", out_sharding=place)  # on a GPU the default has 10 bits


def galore(
    learning_rate: Hyperparameter,
    rank: int = 128,
    update_proj_gap: int = 200,
    scale: Hyperparameter = 1.0,
    base_optimizer: Any = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    weight_dimension_numbers: Any = None,
    *,
    projector_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """AdamW with low-rank moments for matrices. Other arguments: `scale_by_galore`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters, as Adam's.
      scale: the source's alpha, 0.25 there.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.

    Reads: params.
    Source: Zhao et al., GaLore, ICML 2024 (arXiv:2403.03507).
    """
    return chain(
        scale_by_galore(
            rank, update_proj_gap, scale, base_optimizer, weight_dimension_numbers, projector_dtype=projector_dtype
        ),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

"""What methods share that let another transformation work on a low-rank projection of each matrix's gradient."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from gradtx import keys, leafwise, paths
from gradtx.calls import given_what_it_names
from gradtx.clock import Hyperparameter, start, time
from gradtx.combine.dimensions import as_dimension_numbers, matrix_axes
from gradtx.core import GradientTransformation, Params, State, Updates, transformation
from gradtx.formulas import alike
from gradtx.linalg.axes import Axes, as_matrices, from_matrices
from gradtx.moments import abs_sq, length
from gradtx.partial import FUNCTIONS
from gradtx.placement import differing_like, laid_like, whole_everywhere, zeros_of_axes
from gradtx.reductions import Asking, summed
from gradtx.value import number, part, static, storage_dtype, whole

ONE_SIDE = ("longer", "shorter", "rows", "columns")
SIDES = (*ONE_SIDE, "both")
Pair = Sequence[Array | None]  # P of the rows and P of the columns; None for a side that is left alone
EPS = 1e-8  # added to the norm that a ratio of norms divides by


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


def as_projection(owner: str, name: str, x: Any) -> Any:
    """How P is made: "svd", "random", or a function of (key, shape, dtype)."""
    if x in ("svd", "random") or callable(x):
        return x
    raise ValueError(f"`{owner}`: {name} must be 'svd', 'random' or a function of (key, shape, dtype), got {x!r}.")


@transformation
class low_rank(GradientTransformation):
    """What `scale_by_galore`, `scale_by_fira` and `scale_by_apollo` extend: they say what becomes of a gradient.

    Its fields, `begin` for their `init`, `step` for their `update`.
    """

    rank: int = whole(default=128, within="[1, inf)")
    update_proj_gap: int = number(default=200, within="[1, inf)", integer=True)
    scale: Hyperparameter = number(default=1.0)
    base_optimizer: Any = part(default=None)
    weight_dimension_numbers: Any = static(default=None, convert=_numbers)
    side: str = static(default="shorter", one_of=SIDES, kw_only=True)
    projection: Any = static(default="svd", convert=as_projection, kw_only=True)
    key: Any = part(default=0, convert=keys.checked)
    projector_dtype: DTypeLike | None = storage_dtype(default=None, kw_only=True)

    def begin(self, params: Params) -> tuple[Array, State, Params]:
        """The count, the base optimizer's state of the projected parameters, and P: None where it is not stored."""
        leaves, structure = jax.tree.flatten(params)
        rows = list(zip(leaves, self._axes(params), strict=True))

        def zeros(p, axes, which, dtype=None):
            entry = leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), dtype)
            shape, made_of = self._shapes(p.shape, axes)[which]
            return zeros_of_axes(p, made_of, shape=shape, dtype=entry.dtype)

        def projector(p, axes):
            if axes is None or self.projection != "svd":
                return None
            return _stored([zeros(p, axes, i, self.projector_dtype) for i in self._sides(p.shape, axes)])

        proxies = structure.unflatten(p if axes is None else zeros(p, axes, 2) for p, axes in rows)
        return start(), self.base_optimizer.bare_init(proxies), structure.unflatten([projector(*row) for row in rows])

    def norms(self, params: Params) -> Params:
        """Zero for each matrix."""
        leaves, structure = jax.tree.flatten(paths.plain(params))

        def zeros(p, axes):
            real = jnp.finfo(leafwise.wide_dtype(p)).dtype
            return None if axes is None else zeros_of_axes(p, [(i,) for i in axes.batch], dtype=real)

        return structure.unflatten(map(zeros, leaves, self._axes(params)))

    def step(self, formula: Callable, updates: Updates, state: Any, extra: dict, kept: Any = None) -> tuple:
        """The updates, the base optimizer's state, P, and what is kept of each matrix: as in `kept`, or nothing.

        Args:
          formula: of the matrices in a leaf, stacked. From their gradient, its projection R, the base optimizer's N of
            R, P and what is kept, to what becomes of the gradient, and what is kept then. It may ask for sums.
        """
        leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
        slots = lambda tree: paths.aligned(structure, tree, updates)[1]
        made = lambda leaves: paths.unflatten(structure, leaves, updates)
        stored: list[Any] = slots(state.projector)
        norms: list[Any] = [None] * len(leaves) if kept is None else slots(kept)
        present = [i for i, g in enumerate(leaves) if g is not None]
        axes = {i: x for i, x in zip(present, self._axes(updates), strict=True) if x is not None}
        place = {i: _as_it_lies if all(len(group) < 2 for group in x) else whole_everywhere for i, x in axes.items()}
        flat = lambda i, x, ndim: place[i](x).reshape(-1, *x.shape[x.ndim - ndim :])
        stacks = {i: as_matrices(place[i](leaves[i]), x) for i, x in axes.items()}
        old = {i: [flat(i, p, 2) for p in jax.tree.leaves(stored[i])] for i in axes}
        names = paths.names(updates, paths.is_none)
        new = self._projections(state.count, stacks, old, names)
        low, r = list(leaves), {i: projected(g, new[i]) for i, g in stacks.items()}
        for i, x in axes.items():
            low[i] = r[i].reshape(self._shapes(leaves[i].shape, x)[2][0])
        unneeded = (*FUNCTIONS, "grad")  # of parameters in their own shapes
        extra = {name: x for name, x in extra.items() if name not in unneeded}
        with time(state.count):
            out, base = self.base_optimizer.bare_update(made(low), state.base_optimizer_state, None, **extra)
        outgoing = slots(out)
        rows = [
            (g, r[i], flat(i, outgoing[i], 2), new[i], None if norms[i] is None else flat(i, norms[i], 0))
            for i, g in stacks.items()
        ]
        for i, (u, norm) in zip(axes, alike(formula, rows), strict=True):
            outgoing[i] = laid_like(from_matrices(u, axes[i], leaves[i].shape), leaves[i])
            norms[i] = None if norm is None else laid_like(norm.reshape(norms[i].shape), norms[i])
            like = jax.tree.leaves(stored[i])
            if like:
                found = [p for p in new[i] if p is not None]
                stored[i] = _stored([laid_like(p.reshape(x.shape), x) for p, x in zip(found, like, strict=True)])
        return made(outgoing), base, made(stored), None if kept is None else made(norms)

    def _axes(self, params: Params) -> list[Axes | None]:
        """Of each leaf the axes of its matrices; None where it has none, or no entries."""
        found = matrix_axes(self.weight_dimension_numbers, params, self.name)
        return [axes if p.size else None for axes, p in zip(found, jax.tree.leaves(params), strict=True)]

    def _sides(self, shape: Sequence[int], axes: Axes | None = None) -> list[int]:
        """The sides that are projected: 0, the rows; 1, the columns. The rows of a square count as the longer side."""
        m, n = shape[-2:] if axes is None else axes.sizes(shape)[1:]
        longer = 0 if m >= n else 1
        return {"longer": [longer], "shorter": [1 - longer], "rows": [0], "columns": [1], "both": [0, 1]}[self.side]

    def _shapes(self, shape: Sequence[int], axes: Axes) -> list[tuple]:
        """The shapes of P of the rows, of P of the columns, and of R, and of which axes their dimensions are made."""
        matrices, *sizes = axes.sizes(shape)
        rank = (min(self.rank, *sizes), ())
        whole = list(zip(sizes, axes.sides, strict=True))
        low = [rank if i in self._sides(shape, axes) else whole[i] for i in (0, 1)]
        several = [(matrices, axes.batch)] if axes.batch else []
        return [tuple(zip(*several, *dims, strict=True)) for dims in ([whole[0], rank], [whole[1], rank], low)]

    def _projections(self, count: Array, stacks: dict, old: dict, names: list[str]) -> dict[int, Pair]:
        """P of each stack of matrices."""
        pair = lambda g, found: [dict(zip(self._sides(g.shape), found, strict=True)).get(i) for i in (0, 1)]
        if self.projection != "svd":
            refresh = count // self.update_proj_gap
            return {i: pair(g, self._drawn(refresh, g, i, names[i])) for i, g in stacks.items()}

        def vectors(g, like):
            u, _, vh = jnp.linalg.svd(jax.lax.stop_gradient(whole_everywhere(g)), full_matrices=False)
            found = [(u, vh.mT.conj())[i] for i in self._sides(g.shape)]
            return [laid_like(v[..., : p.shape[-1]].astype(p.dtype), p) for v, p in zip(found, like, strict=True)]

        # also where a matrix had no gradient at the last time: its P is 0
        missing = [jnp.all(p[..., 0] == 0) for each in old.values() for p in each]
        now = jnp.any(jnp.stack([count % self.update_proj_gap == 0, *missing]))
        anew = lambda: {i: vectors(g, old[i]) for i, g in stacks.items()}
        found = jax.lax.cond(now, anew, lambda: differing_like(old, now))
        return {i: pair(g, found[i]) for i, g in stacks.items()}

    def _drawn(self, refresh: Array, g: Array, place: int, name: str) -> list[Array]:
        """P of a stack of matrices by its key, its place among the leaves and how often P was drawn before."""
        k, *sizes = g.shape
        rank = min(self.rank, *sizes)
        draw: Any = given_what_it_names(_normal if self.projection == "random" else self.projection)
        key = jax.random.fold_in(jax.random.fold_in(keys.typed(self.key), refresh), place)
        found = []
        for side in self._sides(g.shape):
            shape = (sizes[side], rank)
            each = jax.random.split(jax.random.fold_in(key, side), k)
            p = jax.vmap(lambda key, shape=shape: draw(key, shape, g.dtype, name=name, refresh=refresh))(each)
            if p.shape != (k, *shape):
                raise ValueError(
                    f"`{self.name}`: projection made the shape {p.shape[1:]} for {name!r}, and not {shape}."
                )
            kind = jax.typeof(g).sharding
            spec = [*kind.spec, *[None] * (3 - len(kind.spec))]
            along = NamedSharding(kind.mesh, PartitionSpec(spec[0], spec[1 + side], None)) if any(spec) else None
            found.append(p if along is None else jax.sharding.reshard(p, along))
        return found


def projected(g: Array, p: Pair) -> Array:
    """R of stacked matrices: P^H g, g P, or both."""
    rows, columns = p
    g = g if rows is None else _product("kmr,kmn->krn", rows.conj(), g)
    return g if columns is None else _product("kmn,knr->kmr", g, columns)


def projected_back(r: Array, p: Pair) -> Array:
    """What lies in the space of P: P r, r P^H, or both."""
    rows, columns = p
    r = r if rows is None else _product("kmr,krn->kmn", rows, r)
    return r if columns is None else _product("kmr,knr->kmn", r, columns.conj())


def ratio(n: Array, r: Array, p: Pair, scale_type: str) -> Asking[Array]:
    """Within a formula, `yield from`: |N| / (|R| + 1e-8), of each channel, along which P is none, or of each matrix."""
    if scale_type == "tensor":
        squares = yield from summed((abs_sq(n), (1, 2)), (abs_sq(r), (1, 2)))
        squares = [x[:, None, None] for x in squares]
    else:
        squares = [jnp.sum(abs_sq(x), 2 if p[0] is None else 1, keepdims=True) for x in (n, r)]
    return length(squares[0]) / (length(squares[1]) + EPS)


def _normal(key: Array, shape: tuple[int, int], dtype: Any) -> Array:
    """Of columns of which the squares are expected to be 1 / rank in sum for each row: P P^H is 1 in expectation."""
    return jax.random.normal(key, shape, dtype) * shape[1] ** -0.5


def _stored(p: list[Array]) -> Any:
    return p[0] if len(p) == 1 else tuple(p)


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

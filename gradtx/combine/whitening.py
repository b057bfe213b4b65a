"""Whitening with a factor for each side of each parameter: where the factors lie, when and by what they are fitted."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import keys, leafwise, paths
from gradtx.clock import as_float, tick
from gradtx.combine.dimensions import matrix_axes
from gradtx.core import Params, Updates
from gradtx.linalg import whitening
from gradtx.linalg.axes import Axes
from gradtx.linalg.matrices import map_stacks
from gradtx.placement import differing_like, in_place_of, laid_like, zeros_of_axes

Diagonal = Callable[[Sequence[int]], Sequence[bool]]  # from the sizes of sides to which have a diagonal factor


def sides(numbers: Any, params: Params, owner: str, *, merge: bool) -> list[Axes | None]:
    """Of each leaf the axes of its tensors, with the sides that have factors; None of one without entries.

    Sides of length 1 have none of their own; a leaf of one entry has one side.

    Args:
      numbers: dimension numbers, from `as_dimension_numbers`; of a leaf without, each axis is a side.
      merge: of a leaf without, take all axes but the last as one side.
    """
    leaves = jax.tree.leaves(params)
    if numbers is None:
        found = [_every(p.ndim, merge) for p in leaves]
    else:
        found = matrix_axes(numbers, params, owner)
        found = [_every(p.ndim, merge) if a is None else a for a, p in zip(found, leaves, strict=True)]
    return [_longer(a, p.shape) if p.size else None for a, p in zip(found, leaves, strict=True)]


def _every(ndim: int, merge: bool) -> Axes:
    if merge and ndim > 2:
        return Axes((), (tuple(range(ndim - 1)), (ndim - 1,)))
    return Axes((), tuple((i,) for i in range(ndim)))


def _longer(axes: Axes, shape: Sequence[int]) -> Axes:
    """The axes with sides of length 1 as parts of others."""
    lengths = axes.sizes(shape)[1:]
    longer = [side for side, n in zip(axes.sides, lengths, strict=True) if n != 1]
    rest = sum((side for side, n in zip(axes.sides, lengths, strict=True) if n == 1), ())
    return Axes(axes.batch, ((*longer[0], *rest), *longer[1:]) if longer else (rest,))


def initial(p: Any, axes: Axes | None, diagonal: Diagonal, scale: Any, dtype: DTypeLike | None) -> tuple[tuple, Any]:
    """The factors of a leaf, of which the product is `scale` times the identity, and the zero bounds of their sides."""
    if axes is None:
        return (), None
    batch = [p.shape[i] for i in axes.batch]
    lengths = axes.sizes(p.shape)[1:]
    made_of = [(i,) for i in axes.batch]
    wide = leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), dtype).dtype
    factors = []
    along = {len(batch): [i for i in range(p.ndim) if i not in axes.batch]}
    for side, d, is_diagonal in zip(axes.sides, lengths, diagonal(lengths), strict=True):
        shape, one = ((d,), jnp.ones(d)) if is_diagonal else ((d, d), jnp.eye(d))
        zeros = zeros_of_axes(
            p, [*made_of, side, *[()] * (len(shape) - 1)], shape=(*batch, *shape), dtype=wide, along=along
        )
        one = (one * scale ** (1 / len(lengths))).astype(wide).reshape(*[1] * len(batch), *shape)
        factors.append(in_place_of(zeros, one))
    real = leafwise.zeros(jax.ShapeDtypeStruct((), p.dtype), real=True).dtype
    return tuple(factors), zeros_of_axes(p, [*made_of, ()], shape=(*batch, len(lengths)), dtype=real)


def due(since: Array, share: Any) -> tuple[Any, Array]:
    """Whether factors are fitted now, and the count of updates since they were: each (1 / share)-th time."""
    if isinstance(share, float) and share >= 1:
        return True, since
    since = tick(since)
    now = as_float(since) >= 1 / jnp.maximum(share, jnp.finfo(jnp.float32).tiny)
    return now, jnp.where(now, 0, since)


def probes(given: Any, key: Any, count: Array, now: Any, updates: Updates) -> list[Any]:
    """Of each leaf normal numbers, a function of the key, the time and the leaf's place; or those that are given.

    Args:
      now: whether they are needed; else they are zeros.
    """
    leaves, structure = jax.tree.flatten(updates, is_leaf=paths.is_none)
    if given is not None:
        given = paths.aligned(structure, given, updates)[1]
        return [None if g is None else jnp.asarray(v, g.dtype) for g, v in zip(leaves, given, strict=True)]
    key = jax.random.fold_in(keys.typed(key), count)
    places = [i for i, g in enumerate(leaves) if g is not None]

    def draw() -> list[Array]:
        fresh = [jax.random.normal(jax.random.fold_in(key, i), leaves[i].shape, leaves[i].dtype) for i in places]
        return [differing_like(laid_like(v, leaves[i]), leaves[i]) for i, v in zip(places, fresh, strict=True)]

    def nothing() -> list[Array]:
        return [differing_like(jnp.zeros_like(leaves[i]), leaves[i]) for i in places]

    drawn = draw() if now is True else jax.lax.cond(now, draw, nothing)
    found = dict(zip(places, drawn, strict=True))
    return [found.get(i) for i in range(len(leaves))]


def whitened(
    means: Updates,
    seen: Updates | None,
    probe: Sequence[Any],
    factors: Params,
    bounds: Params,
    axes: Sequence[Axes | None],
    form: str,
    noised: Callable[[Array, Array, Any], Array],
    now: Any,
    rate: Any,
    decay: Any,
    damping: Any,
    scale: Any = 1.0,
    *,
    rounds: int,
    fit_first: bool,
    apply_noise: bool,
    precision: Any,
    dtype: DTypeLike | None,
) -> tuple[Updates, Params, Params]:
    """The means whitened, and the factors and bounds fitted if it is time.

    Args:
      means: what is whitened.
      seen: what the factors are fitted to; None, the means.
      probe: from `probes`.
      axes: from `sides`, of each leaf that is not None.
      form: of `linalg.whitening.FORMS`.
      noised: from tensors, probes and the damping to the tensors that factors are fitted to.
      now: whether it is time.
      rate, decay, rounds, precision, dtype: see `linalg.whitening`.
      scale: what P is multiplied by before all.
      fit_first: whether the means are whitened by the new factors.
      apply_noise: whether the means are whitened with the noise that they have for the fit.
    """
    leaves, structure = jax.tree.flatten(means, is_leaf=paths.is_none)
    structures, slots = zip(*[paths.aligned(structure, x, means) for x in (factors, bounds)], strict=True)
    others = leaves if seen is None else jax.tree.leaves(seen, is_leaf=paths.is_none)
    remaining = iter(axes)
    of_leaf = {i: a for i, g in enumerate(leaves) if g is not None and (a := next(remaining)) is not None}
    kind = whitening.FORMS[form]

    def fn(stacks, now, rate, decay, damping, scale):
        x, *rest = stacks
        sides = x.ndim - 1
        v, *extra = rest[sides + 1 :]
        stored = rest[: sides + 1]
        *old, bounds = differing_like([y.astype(_as_wide(x, y)) for y in stored], stacks)
        power = (1 if kind.direct else 0.5) / sides
        old = old if isinstance(scale, float) else [q * (scale**power).astype(q.dtype) for q in old]
        noisy = noised(extra[0] if extra else x, v, damping)

        def fit():
            new = whitening.refitted(noisy, v, old, bounds, rate, decay, kind, rounds, precision=precision)
            return list(new[0]), new[1]

        new, bounds = fit() if now is True else jax.lax.cond(now, fit, lambda: (old, bounds))
        x = noised(x, v, damping) if apply_noise else x
        u = whitening.whitened(x, new if fit_first else old, kind, precision=precision, dtype=dtype)
        return (u, *(y.astype(s.dtype) for y, s in zip((*new, bounds), stored, strict=True)))

    items, item_axes = [], []
    for i, a in of_leaf.items():
        n = len(a.batch)
        batch = tuple(range(n))
        of_factors = [Axes(batch, tuple((k,) for k in range(n, q.ndim))) for q in slots[0][i]]
        more = [probe[i]] if seen is None else [probe[i], others[i]]
        items.append([leaves[i], *slots[0][i], slots[1][i], *more])
        item_axes.append([a, *of_factors, Axes(batch, ((n,),)), *[a] * len(more)])
    found = map_stacks(fn, items, item_axes, (now, rate, decay, damping, scale))
    for i, (u, *rest, bound) in zip(of_leaf, found, strict=True):
        leaves[i], slots[0][i], slots[1][i] = u, tuple(rest), bound
    new_factors, new_bounds = (paths.unflatten(own, x, means) for own, x in zip(structures, slots, strict=True))
    return paths.unflatten(structure, leaves, means), new_factors, new_bounds


def _as_wide(x: Array, y: Array) -> Any:
    """The dtype of what is kept while it is computed with: as wide as x, real or complex as it is."""
    return x.dtype if jnp.iscomplexobj(y) else x.real.dtype


def fourth_root_mean(updates: Updates) -> Array:
    """The largest over the leaves of the fourth root of the mean of |g|^4; 0 of what is not finite."""

    def leaf(g):
        size = jnp.abs(g)
        size = jnp.where(jnp.isfinite(size), size, 0)
        top = jnp.max(size, initial=0)
        mean = jnp.sum((size / jnp.where(top > 0, top, 1)) ** 4) / math.prod(g.shape or (1,))
        return top * mean**0.25

    found = [leaf(g) for g in jax.tree.leaves(updates) if g.size]
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        return jnp.max(jnp.stack(found)) if found else jnp.zeros(())

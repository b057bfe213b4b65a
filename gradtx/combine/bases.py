"""Statistics of the sides of parameters, bases made of them, and parameters in these bases: by `map_stacks` throughout,
so that what looks alike is computed together, and each tensor whole on one device.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx.combine.sides import Sides, has_statistics
from gradtx.linalg import blocking, eigenbasis
from gradtx.linalg.axes import Axes, factor_axes, factors
from gradtx.linalg.matrices import map_stacks
from gradtx.placement import zeros_of_axes

Held = dict[int, list[Array]]  # by a leaf's place, of each of its sides that have statistics


@dataclass(frozen=True)
class Bases:
    """How the sides of some leaves, by their places, are treated.

    Args:
      sides: of each leaf that has any.
      max_dim: as in `sides_of`.
      precision: of products, as JAX names it.
      rotation_dtype: in what leaves are rotated; None, their own.
    """

    sides: dict[int, Sides]
    max_dim: int
    precision: str
    rotation_dtype: DTypeLike | None

    def rotated(self, leaves: dict[int, Array], bases: Held) -> dict[int, Array]:
        """The leaves in the bases."""
        return self._each(self._rotate, leaves, bases)

    def rotated_back(self, leaves: dict[int, Array], bases: Held) -> dict[int, Array]:
        """The inverse of `rotated`."""
        back = lambda x, q: self._product(eigenbasis.rotated_back, x, q)
        return self._each(back, leaves, bases)

    def measured(
        self, leaves: dict[int, Array], second: Held, values: Held, bases: Held, numbers: tuple, *, rotate: bool
    ) -> tuple[Held, Held, dict[int, Array]]:
        """Second moments with the leaves in them, and eigenvalues, where there are any; the leaves in the bases, if
        `rotate`, else nothing of use.

        Args:
          numbers: the decay, the least eigenvalue that divides, and whether these leaves are the first: then they are
            not whitened, and not in the eigenvalues.
        """
        is_kl = any(values.values())

        def measure(stacks: Any, decay: Any, floor: Any, is_first: Array) -> list[Array]:
            n = (len(stacks) - 1) // (2 + is_kl)
            second, values, x = stacks[:n], stacks[n : len(stacks) - n - 1], stacks[-n - 1]
            bases = self._of_each(x, stacks[-n:])
            every = [i for i, q in enumerate(bases) if q is not None]
            gain = jnp.where(decay < 1, 1 - decay, 1)
            mean = lambda old, new: (decay * old + gain * new).astype(old.dtype)
            if not is_kl:
                found = [(eigenbasis.second_moment(x, i, precision=self.precision), None) for i in every]
            else:
                usable = self._of_each(
                    x, [jnp.where(is_first, 1, jnp.maximum(v, floor)).astype(v.dtype) for v in values]
                )
                found = [eigenbasis.whitened_moment(x, i, bases, usable, precision=self.precision) for i in every]
                new = [diagonal for _, diagonal in found]
                values = [jnp.where(is_first, v, mean(v, d)) for v, d in zip(values, new, strict=True)]
            second = [mean(old, new) for old, (new, _) in zip(second, found, strict=True)]
            return [*second, *values, *([self._rotate(x, bases)] if rotate else [])]

        items = [(*second[i], *values[i], leaves[i], *bases[i]) for i in self.sides]
        axes = [
            self._axes(i, "F" * len(second[i]) + "v" * len(values[i]) + "x" + "F" * len(bases[i])) for i in self.sides
        ]
        found = dict(zip(self.sides, map_stacks(measure, items, axes, numbers), strict=True))
        count = {i: len(second[i]) for i in self.sides}
        values = {i: found[i][n : n + len(values[i])] for i, n in count.items()}
        return {i: found[i][:n] for i, n in count.items()}, values, {i: x[-1] for i, x in found.items()}

    def renewed(
        self, leaves: dict[int, Array], second: Held, values: Held, bases: Held, iterate: Any, *, sort: bool
    ) -> tuple[Held, Held, Held, Held]:
        """Bases nearer to the eigenvectors of the second moments; turns and orders, given by `eigenbasis` beside them;
        and the eigenvalues in that order. All sides of a length are computed together.

        Args:
          leaves: of the shapes, laid as they are.
          iterate: a bool, or an array that tells.
        """
        operands = () if iterate is False else (iterate,)

        def renew(stacks: Any, iterate: Any = False) -> list[Array]:
            old, factor, order, *values = stacks
            new, turn, places = eigenbasis.eigenbasis(factor, old, iterate, sort=sort, precision=self.precision)
            return [new, turn, places.astype(order.dtype), *(eigenbasis.reordered(v, [places]) for v in values)]

        items, axes = [], []
        for i, sides in self.sides.items():
            orders = vectors(leaves[i], sides.some, jnp.int32)
            for n, parts in enumerate(zip(bases[i], second[i], orders, strict=True)):
                items.append((*parts, *values[i][n : n + 1]))
                axes.append(self._axes(i, "FFvv"[: len(items[-1])]))
        found = iter(map_stacks(renew, items, axes, operands))
        of_side = {i: [next(found) for _ in bases[i]] for i in self.sides}
        part = lambda n: {i: [x[n] for x in xs] for i, xs in of_side.items()}
        return part(0), part(1), part(2), part(3) if any(values.values()) else values

    def moved(self, arrays: Sequence[tuple[int, Array]], how: Held, *, along: str) -> list[Array]:
        """Arrays of the leaves' shapes, each with its leaf's place, moved as the bases were.

        Args:
          how: turns or orders, from `renewed`.
          along: "turn" for what is linear in the leaf, "order" for squares of its coordinates.
        """
        linear = along == "turn"
        turn = lambda x, t: eigenbasis.turned(x, t, precision=self.precision) if linear else eigenbasis.reordered(x, t)
        fn = lambda stacks: (turn(stacks[0], self._of_each(stacks[0], stacks[1:])),)
        items = [(x, *how[i]) for i, x in arrays]
        axes = [self._axes(i, "x" + ("F" if linear else "v") * len(how[i])) for i, _ in arrays]
        return [x for (x,) in map_stacks(fn, items, axes)]

    def _each(self, fn: Callable, leaves: dict[int, Array], held: Held) -> dict[int, Array]:
        of_stacks = lambda stacks: (fn(stacks[0], self._of_each(stacks[0], stacks[1:])),)
        axes = [self._axes(i, "x" + "F" * len(held[i])) for i in self.sides]
        found = map_stacks(of_stacks, [(leaves[i], *held[i]) for i in self.sides], axes)
        return {i: x for i, (x,) in zip(self.sides, found, strict=True)}

    def _rotate(self, x: Array, bases: Sequence[Array | None]) -> Array:
        return self._product(eigenbasis.rotated, x, bases)

    def _product(self, turn: Callable, x: Array, bases: Sequence[Array | None]) -> Array:
        return turn(x, bases, precision=self.precision, dtype=self.rotation_dtype)

    def _of_each(self, x: Array, found: Sequence[Array]) -> list[Array | None]:
        """What is given of those sides of stacked tensors that have any, with None in the places of the others."""
        remaining = iter(found)
        return [next(remaining) if has_statistics(size, self.max_dim) else None for size in x.shape[1:]]

    def _axes(self, i: int, kinds: str) -> list[Axes]:
        """The axes of arrays that belong to a leaf: x, like the leaf; F, a side's matrix; v, a side's numbers."""
        some = self.sides[i].some
        n = len(some.batch)
        of_kind = {"x": self.sides[i].axes, "F": factor_axes(some), "v": Axes(tuple(range(n)), ((n,),))}
        return [of_kind[kind] for kind in kinds]


def vectors(x: Any, axes: Axes, dtype: Any) -> list[Array]:
    """Zeros, a vector for each side of the tensors in an array, with its batch axes before. Each lies where its side
    does.
    """
    made_of = [(i,) for i in axes.batch]
    batch = [x.shape[i] for i in axes.batch]
    sizes = axes.sizes(x.shape)[1:]
    return [
        zeros_of_axes(x, [*made_of, side], shape=(*batch, size), dtype=dtype)
        for side, size in zip(axes.sides, sizes, strict=True)
    ]


def identities(x: Any, axes: Axes, dtype: Any) -> list[Array]:
    """As `factors`, the identity for each side."""
    return [blocking.identities(f) for f in factors(x, axes, dtype=dtype)]


def product_of_sides(values: Sequence[Array], sides: Sides, shape: Sequence[int]) -> Array:
    """The numbers of all sides multiplied, as an array that broadcasts to a leaf's shape."""
    found = jnp.ones([1] * len(shape), values[0].dtype)
    for v, side in zip(values, sides.some.sides, strict=True):
        named = (*sides.axes.batch, *side)
        order = sorted(range(len(named)), key=lambda n: named[n])
        x = v.reshape([shape[i] for i in named]).transpose(order)
        found = found * jnp.expand_dims(x, [i for i in range(len(shape)) if i not in named])
    return found

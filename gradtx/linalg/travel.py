"""What travels, and how, when devices compute whole tensors of which each has a block: a round there and back."""

import math
from collections.abc import Callable, Mapping, Sequence

import jax.numpy as jnp
from jax import Array, lax

from gradtx.linalg.blocks import Form, Share, by_form, divided, joined, shaped
from gradtx.placement import differing_like, manual_axes


class Round:
    """Some tensors of a shape. Each device has a block of each; device d computes those in the slots (s, d) of a table.

    What is left of the table is filled with the first tensors again, so that only tensors are computed. An item's
    arrays that lie along the same mesh axes travel together: one all-to-all there and one back. Along other axes of the
    devices each has the same blocks of an array: there it takes its own, and results are gathered.

    Args:
      forms: of each tensor, the form of its block in each array.
      shares: of each array.
      along: the mesh axes that any of the arrays lies along.
      free: others along which the work is divided.
      sizes: of mesh axes.
    """

    def __init__(
        self,
        forms: Sequence[tuple[Form, ...]],
        shares: Sequence[Share],
        along: tuple[str, ...],
        free: tuple[str, ...],
        sizes: Mapping[str, int],
    ) -> None:
        self.count, self.shares, self.sizes = len(forms), shares, sizes
        self.alone = self.count == 1 and bool(along)  # to gather one tensor everywhere moves half as much
        self.axes = () if self.alone else free + along  # of the devices that divide the work
        self.devices = self._size(self.axes)
        self.slots = -(-self.count // self.devices)
        place = lax.axis_index(self.axes) if self.devices > 1 else 0
        table = [
            [forms[(slot * self.devices + d) % self.count] for d in range(self.devices)] for slot in range(self.slots)
        ]
        tables = [[[kinds[k] for kinds in slot] for slot in table] for k in range(len(shares))]
        self.convert = lambda x, k, change: by_form(
            x, tables[k], place, lambda x, form: change(x, form, shares[k], sizes)
        )

    def computed(self, fn: Callable[..., Sequence[Array]], arrays: Sequence[Array]) -> list[Array]:
        """The blocks of `fn` of the tensors, from their blocks in each array."""
        whole: dict[int, Array] = {}
        for along, places in self._together(arrays):
            x = self._there(_side_by_side([arrays[k] for k in places]), along)
            for k, part in zip(places, _apart(x, [arrays[k] for k in places]), strict=True):
                whole[k] = self.convert(part, k, joined)
        for k, x in enumerate(arrays):
            if not x.size:
                zeros = jnp.zeros((self.slots, *self.shares[k].sides), x.dtype)
                whole[k] = differing_like(zeros, list(whole.values()))
        results = fn(*[whole[k] for k in range(len(arrays))])
        found = {k: x for k, x in enumerate(arrays[: len(results)]) if not x.size}
        for along, places in self._together(results):
            blocks = [self.convert(results[k], k, divided) for k in places]
            x = self._back(_side_by_side(blocks), along)
            found |= zip(places, _apart(x, blocks), strict=True)
        return [found[k] for k in range(len(results))]

    def _together(self, arrays: Sequence[Array]) -> list[tuple[tuple[str, ...], list[int]]]:
        """The places of the arrays that can travel in one, and the mesh axes that they lie along."""
        found: dict = {}
        for k, (x, share) in enumerate(zip(arrays, self.shares, strict=False)):
            if x.size:
                found.setdefault((share.along, x.dtype, manual_axes(x)), []).append(k)
        return [(along, places) for (along, *_), places in found.items()]

    def _there(self, x: Array, along: tuple[str, ...]) -> Array:
        """Of the tensors that this device computes all blocks: slots, devices along the axes, entries of a block."""
        width, total = x.shape[1], self.slots * self.devices
        repeated = jnp.tile(x, (-(-total // self.count), 1)) if total > self.count else x
        x = shaped(repeated[:total], (self.slots, *map(self.sizes.__getitem__, self.axes), width))
        others, order = self._others(along)
        rest = self.devices // self._size(others)
        x = shaped(x.transpose(order), (self.slots, self._size(others), rest, width))
        x = lax.dynamic_index_in_dim(x, lax.axis_index(others), 1, keepdims=False) if others else x[:, 0]
        if not along:
            return x
        if self.alone:
            return lax.all_gather(x, along, axis=1, tiled=True, to="invarying")
        return lax.all_to_all(x, along, 1, 1, tiled=True)

    def _back(self, x: Array, along: tuple[str, ...]) -> Array:
        """Of each tensor the block of this device, from what `_there` gives."""
        if along and self.alone:
            x = lax.dynamic_slice_in_dim(x, lax.axis_index(along), 1, 1)
        elif along:
            x = lax.all_to_all(x, along, 1, 1, tiled=True)
        others, order = self._others(along)
        x = lax.all_gather(x, others, axis=1, to="invarying") if others else x
        width, sizes = x.shape[-1], [self.slots, *map(self.sizes.__getitem__, self.axes)]
        x = shaped(x, [*[sizes[i] for i in order[:-1]], width])
        x = x.transpose([order.index(i) for i in range(len(order))])
        return shaped(x, (self.slots * self.devices, width))[: self.count]

    def _others(self, along: tuple[str, ...]) -> tuple[tuple[str, ...], list[int]]:
        """The devices' axes along which blocks are the same, and the order in which these come before the others."""
        others = tuple(name for name in self.axes if name not in along)
        rest = [name for name in self.axes if name in along]
        dimensions = [1 + self.axes.index(name) for name in (*others, *rest)]
        return others, [0, *dimensions, 1 + len(self.axes)]

    def _size(self, names: Sequence[str]) -> int:
        return math.prod(self.sizes[name] for name in names)


def _side_by_side(arrays: list[Array]) -> Array:
    return jnp.concatenate(arrays, -1) if len(arrays) > 1 else arrays[0]


def _apart(x: Array, like: list[Array]) -> list[Array]:
    """The inverse of `_side_by_side`, of arrays as wide as others."""
    ends = [sum(y.shape[-1] for y in like[: n + 1]) for n in range(len(like) - 1)]
    return jnp.split(x, ends, -1)

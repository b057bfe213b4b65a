"""What of the tensors in an array a device has: blocks, and whole tensors joined of them and divided into them."""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx.placement import axes_of

if TYPE_CHECKING:
    from gradtx.linalg.axes import Axes

# A block of a tensor: of each of its dimensions how many entries are here, and the mesh axes that the others are along.
Form = tuple[tuple[int, tuple[str, ...]], ...]


class Share(NamedTuple):
    """The tensors in an array, and what of them a device has."""

    sides: tuple[int, ...]  # of the whole
    form: Form
    along: tuple[str, ...]  # the mesh axes that the tensor's blocks lie along, in the mesh's order


def axes_along(x: Array) -> list[tuple[str, ...]]:
    """Of each dimension of an array, the mesh axes that it is sharded along, as far as its type tells."""
    spec = jax.typeof(x).sharding.spec
    return [axes_of(entry) for entry in (*spec, *[None] * (x.ndim - len(spec)))]


def share_of(shape: Sequence[int], spec: Sequence[Sequence[str]], axes: "Axes", sizes: Mapping[str, int]) -> Share:
    """The share of a device, by the sizes of the mesh axes."""
    found = [form_of(shape, spec, side, sizes) for side in axes.sides]
    used = {name for form in found for _, names in form for name in names}
    _, *sides = axes.sizes(shape)
    return Share(tuple(sides), sum(found, ()), tuple(name for name in sizes if name in used))


def form_of(shape: Sequence[int], spec: Sequence[Sequence[str]], side: Sequence[int], sizes: Mapping[str, int]) -> Form:
    """How a side lies that is the product of some of an array's axes."""
    merged: list[tuple[int, tuple[str, ...]]] = [(1, ())]
    for i in side:
        names = tuple(name for name in spec[i] if sizes[name] > 1)
        here = shape[i] // math.prod(sizes[name] for name in names)
        if not names:
            merged[-1] = (merged[-1][0] * here, merged[-1][1])
        elif merged[-1] == (1, ()):
            merged[-1] = (here, names)
        else:
            merged.append((here, names))
    return tuple(merged)


def form_by_type(x: Array, axes: "Axes") -> Form:
    """How the tensors in an array lie, as far as its type tells."""
    return share_of(x.shape, axes_along(x), axes, jax.typeof(x).sharding.mesh.shape).form


def as_blocks(x: Array, axes: "Axes") -> Array:
    """What a device has of an array, one row for each tensor."""
    tensors, *sides = axes.sizes(x.shape)
    return shaped(x.transpose(axes.order), (tensors, math.prod(sides)))


def from_blocks(x: Array, axes: "Axes", shape: Sequence[int]) -> Array:
    """The inverse of `as_blocks`."""
    order = axes.order
    return shaped(x, [shape[i] for i in order]).transpose([order.index(i) for i in range(len(order))])


def shaped(x: Array, shape: Sequence[int]) -> Array:
    """The array in another shape, two dimensions at a time: so types know where it lies along an axis of `jax.vmap`."""
    while x.ndim > 1:
        x = x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    for i in range(1, len(shape)):
        x = x.reshape(*shape[:i], math.prod(shape[i:]))
    return x if len(shape) else x.reshape(())


def joined(x: Array, form: Form, share: Share, sizes: Mapping[str, int]) -> Array:
    """Tensors of their blocks: slots, devices, entries of a block."""
    x = shaped(x, (len(x), *[sizes[name] for name in share.along], *[here for here, _ in form]))
    return shaped(x.transpose(_order(form, share)), (len(x), *share.sides))


def divided(x: Array, form: Form, share: Share, sizes: Mapping[str, int]) -> Array:
    """The blocks of tensors: the inverse of `joined`."""
    x = shaped(x, (len(x), *[n for here, names in form for n in (*[sizes[name] for name in names], here)]))
    order = _order(form, share)
    devices = math.prod(sizes[name] for name in share.along)
    x = x.transpose([order.index(i) for i in range(len(order))])
    return shaped(x, (len(x), devices, math.prod(here for here, _ in form)))


def _order(form: Form, share: Share) -> list[int]:
    """Where each dimension of a tensor comes from in its blocks: what lies along mesh axes, and what is here."""
    order = [0]
    for i, (_, names) in enumerate(form):
        order += [1 + share.along.index(name) for name in names] + [1 + len(share.along) + i]
    return order


def by_form(x: Array, table: list[list[Form]], place: Any, change: Callable[[Array, Form], Array]) -> Array:
    """`change` of each slot, by the form of the tensor that the device at this place has in it.

    Args:
      table: of each slot, the form in it on each device.
    """
    found, start = [], 0
    for forms, run in groupby(table, key=lambda slot: sorted(set(slot))):
        slots = list(run)
        some = x[start : start + len(slots)]
        start += len(slots)
        result = change(some, forms[0])
        for form in forms[1:]:
            mine = jnp.array([[other == form for other in slot] for slot in slots])[:, place]
            result = jnp.where(mine.reshape(-1, *[1] * (result.ndim - 1)), change(some, form), result)
        found.append(result)
    return jnp.concatenate(found) if len(found) > 1 else found[0]

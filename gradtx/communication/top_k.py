"""Top-k with error feedback (Stich et al., 2018; Lin et al., 2018): the largest entries, the others later."""

import itertools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import collectives, leafwise
from gradtx.collectives import Axis, as_axis, names, require_unreduced, size
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.placement import differing_like, laid_like, whole_everywhere
from gradtx.value import number, state, static


@state
class TopKState(NamedTuple):
    """State of `top_k`."""

    error: Params  # of each device: the sum of g that was not sent yet, in float32 or wider


def _fraction(owner: str, name: str, x: Any) -> float:
    checked = number(within="(0, 1]").metadata["convert"](owner, name, x)
    if not isinstance(checked, float):
        raise TypeError(f"`{owner}`: {name} is compiled in and must be a Python number, got {x!r}.")
    return checked


@transformation
class top_k(GradientTransformation):
    """Replaces the updates by the mean over devices of the largest entries of each; what is left is sent later.

        a = e + g;    s = the k entries of a with the largest |a|, 0 elsewhere;    e = a - s
        u = mean over devices of s                            k = ceil(fraction size), per leaf; e from zero

    Devices choose for themselves, so that u may hold up to k entries from each.

    Args:
      fraction: in (0, 1]; the share of each leaf's entries that a device sends. At 1 the updates are the mean of g.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which devices exchange. None: there is
        one.

    Sends: from each device 8 bytes per chosen entry of float32, its value and its place, in two all-gathers: each
      receives those of all. It saves bytes where fraction times devices is well below 1.
    State: 4 bytes per float32 parameter, which differ from device to device. Reads: each device's own gradients, which
      nothing has summed (`gradtx.parallel.varying`). NaN stays in the state: put `apply_if_finite` around, with the
      same axis.
    Raises:
      ValueError: a leaf has more entries than an int32 counts.
    Source: Stich, Cordonnier, Jaggi, Sparsified SGD with memory, NeurIPS 2018, Algorithm 1 (arXiv:1809.07599), whose
      memory is of learning rate times gradient: put `top_k` after `scale_by_learning_rate` for that. Lin, Han, Mao,
      Wang, Dally, Deep Gradient Compression, ICLR 2018 (arXiv:1712.01887); its momentum correction is a `trace` before
      `top_k`, without the masking of that trace.
    """

    fraction: float = static(convert=_fraction)
    axis: Axis = static(default=None, convert=as_axis)

    def init(self, params):
        return TopKState(collectives.varying(leafwise.zeros(params), self.axis))

    def update(self, updates, state, params=None, **extra):
        require_unreduced(updates, self.axis)
        total = leafwise.map(lambda g, e: e + g, updates, state.error)
        leaves, structure = jax.tree.flatten(total)
        chosen = [self._chosen(x) for x in leaves]
        sent = [(values[None], places[None]) for values, places in chosen]
        if self.axis is not None:
            sent = list(zip(*(_gathered(column, self.axis) for column in zip(*chosen, strict=True)), strict=True))
        share = 1 / size(self.axis)
        means = structure.unflatten(_sum(x, *rows) * share for x, rows in zip(leaves, sent, strict=True))
        left = structure.unflatten(_without(x, places) for x, (_, places) in zip(leaves, chosen, strict=True))
        error = leafwise.choose(lambda old, new: old if new is None else new, state.error, left)
        return leafwise.choose(lambda _, mean: mean, updates, means), TopKState(error)

    def _chosen(self, x: Array) -> tuple[Array, Array]:
        """The largest entries of an array and their places in it as a vector."""
        if x.size > jnp.iinfo(jnp.int32).max:
            raise ValueError(f"`top_k`: a leaf of shape {x.shape} has more entries than an int32 counts: split it.")
        flat = whole_everywhere(x).reshape(-1)
        sizes = jax.lax.stop_gradient(jnp.abs(flat))
        places = jax.lax.top_k(sizes, min(math.ceil(self.fraction * x.size), x.size))[1]
        return flat[places], places


def _gathered(vectors: tuple[Array, ...], axis: Axis) -> list[Array]:
    """Each device's vectors on all devices, a row from each: those of one dtype in one all-gather."""
    found: dict[int, Array] = {}
    for dtype in dict.fromkeys(x.dtype for x in vectors):
        of_dtype = [i for i, x in enumerate(vectors) if x.dtype == dtype]
        together = jnp.concatenate([vectors[i] for i in of_dtype])
        rows = jax.lax.all_gather(together, names(axis), to="invarying")
        ends = list(itertools.accumulate(vectors[i].size for i in of_dtype))[:-1]
        found |= zip(of_dtype, jnp.split(rows, ends, axis=1), strict=True)
    return [found[i] for i in range(len(vectors))]


def _sum(like: Array, values: Array, places: Array) -> Array:
    """The sum of the rows' entries in their places. Row by row: in one order on all devices, which then agree."""

    def add(total, row):
        return total.at[row[1]].add(row[0], unique_indices=True), None

    zeros = differing_like(jnp.zeros(like.size, like.dtype), values)
    total, _ = jax.lax.scan(add, zeros, (values, places))
    return laid_like(total.reshape(like.shape), like)


def _without(x: Array, places: Array) -> Array:
    """The array with 0 in some places: what is left is exactly what was not sent."""
    flat = whole_everywhere(x).reshape(-1)
    return laid_like(flat.at[places].set(0, unique_indices=True).reshape(x.shape), x)

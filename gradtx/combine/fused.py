"""A step of a method whose state is stored in blocks, in one kernel per leaf: each byte is read and written once."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import elementwise, leafwise, paths
from gradtx.storage import blocks
from gradtx.storage.blockwise import Blockwise
from gradtx.storage.codec import Stored, is_stored

ENTRIES = 4096  # of a tile, at most


class Leaf(NamedTuple):
    """What a step computes of one parameter, entry by entry.

    Attributes:
      i: the parameter's place.
      slots: places in the state of what belongs to it.
      results: values of the traced program: the update and the slots after it.
      arrays: values of the gradient, the parameter and the slots before it.
      scalars: values of the other arguments of `results`.
    """

    i: int
    slots: list[int]
    results: list[Any]
    arrays: list[elementwise.Value]
    scalars: list[elementwise.Value]


class Step(NamedTuple):
    """Parameters and state after a step; None in the place of leaves of the state that are yet to be encoded."""

    params: list[Array]
    state: list[Any]
    whole: list[Any]  # leaves of the state in float32, where `state` has None


def fused(update: Callable, grads: Any, params: Any, state: Any, *, interpret: bool | None = None) -> Step | None:
    """A step in kernels, where some leaf can be computed so; else None.

    Args:
      update: (grads, state, params) -> (updates, state), of trees of arrays in float32 or wider.
      grads: one for each parameter.
      params: as they are stored.
      state: with `Stored` in the place of arrays.
      interpret: None: kernels on a GPU, XLA's own program elsewhere; True: kernels, run operation by operation.
    """
    given_grads, given_params = jax.tree.leaves(grads), jax.tree.leaves(params)
    given_state, structure = jax.tree.flatten(state, is_leaf=is_stored)
    decoded = [x.decode() if is_stored(x) else leafwise.widen(x) for x in given_state]
    wide = leafwise.gradients(grads, params), structure.unflatten(decoded), leafwise.widen(params)
    inputs, results, _ = elementwise.trace(update, *wide)
    n, m = len(given_params), len(given_state)
    if not len(given_grads) == n or len(inputs) != 2 * n + m or len(results) != n + m:
        return None
    values = {"grads": inputs[:n], "state": inputs[n : n + m], "params": inputs[n + m :]}
    leaves = _leaves(values, results, given_params, given_state, paths.all_keys(params), _paths(state))
    if not leaves:
        return None
    known = {id(value): x for value, x in zip(inputs, jax.tree.leaves(wide), strict=True)}
    mine = {leaf.i for leaf in leaves}, {j for leaf in leaves for j in leaf.slots}
    others = [x for i, x in enumerate(results) if (i not in mine[0] if i < n else i - n not in mine[1])]
    scalars = [x for leaf in leaves for x in leaf.scalars]
    found = elementwise.compute([*others, *scalars], known)
    rest, scalar = iter(found[: len(others)]), iter(found[len(others) :])
    new_params: list = [None if i in mine[0] else leafwise.widen(p) + next(rest) for i, p in enumerate(given_params)]
    new_params = [x if x is None else x.astype(p.dtype) for x, p in zip(new_params, given_params, strict=True)]
    new_state, whole = [None] * m, [None if j in mine[1] else next(rest) for j in range(m)]
    for leaf in leaves:
        numbers = [next(scalar) for _ in leaf.scalars]
        slots = [given_state[j] for j in leaf.slots]
        p, after = _one(leaf, given_params[leaf.i], given_grads[leaf.i], slots, numbers, interpret)
        new_params[leaf.i] = p
        for j, x in zip(leaf.slots, after, strict=True):
            new_state[j] = x
    return Step(new_params, new_state, whole)


def _paths(state: Any) -> list[tuple[str, ...]]:
    return [paths.keys(path) for path, _ in jax.tree_util.tree_flatten_with_path(state, is_leaf=is_stored)[0]]


def _leaves(values: Any, results: list, params: list, state: list, where: list, slot_paths: list) -> list[Leaf]:
    """The parameters of which all is computed entry by entry, from what is theirs and from scalars."""
    by_path = {path: i for i, path in enumerate(where)}
    slots: dict[int, list[int]] = {}
    for j, path in enumerate(slot_paths):
        its = paths.owner(path, by_path)
        if its is not None and jnp.shape(state[j]) == params[by_path[its]].shape:
            slots.setdefault(by_path[its], []).append(j)
    found = []
    for i, its in slots.items():
        shape = params[i].shape
        wanted = [results[i], *(results[len(params) + j] for j in its)]
        arrays = [values["grads"][i], values["params"][i], *(values["state"][j] for j in its)]
        if not _width(params[i], [state[j] for j in its]) or not elementwise.is_entrywise(wanted, shape):
            continue
        read = elementwise.arguments(wanted)
        known = {id(x) for x in arrays}
        scalars = [x for x in read if id(x) not in known]
        if all(x.shape == () for x in scalars):
            found.append(Leaf(i, its, wanted, arrays, scalars))
    return found


def _width(p: Any, slots: Sequence[Any]) -> int:
    """The width of the blocks in which a parameter's slots are stored; 0 where a kernel does not have them."""
    codecs = [x.codec for x in slots if is_stored(x)]
    widths = {blocks.width(p.shape[-1], codec.block) for codec in codecs if isinstance(codec, Blockwise)}
    if len(widths) != 1 or any(codec.rounds_by_chance for codec in codecs):
        return 0
    (width,) = widths
    return width if width & (width - 1) == 0 and p.shape[-1] % width == 0 else 0


def _one(leaf: Leaf, p: Array, g: Array, slots: list, numbers: list, interpret: bool | None) -> tuple[Array, list]:
    """A parameter and its slots after the step."""
    width = _width(p, slots)
    rows = p.size // width
    flat = lambda x: x.reshape(rows, width) if x.shape == p.shape else x.reshape(rows)
    given, structure = jax.tree.flatten((p, g, slots))
    tile = functools.partial(_tile, leaf, structure)
    kernel = functools.partial(_kernel, tile, leaf, width, interpret)
    args = [*map(flat, given), *(jnp.reshape(x, (1,)) for x in numbers)]
    plainly = lambda *args: tile(args[: len(given)], [x[0] for x in args[len(given) :]])
    found = kernel(*args) if interpret else jax.lax.platform_dependent(*args, cuda=kernel, default=plainly)
    new, after = jax.tree.unflatten(jax.tree.structure((p, slots)), found)
    like = lambda x, old: x.reshape(old.shape)
    return like(new, p), jax.tree.map(like, after, slots)


def _tile(leaf: Leaf, structure: Any, given: Sequence[Array], numbers: Sequence[Array]) -> list[Array]:
    """Rows of a parameter and its slots after the step, from rows before it: whole blocks."""
    p, g, slots = structure.unflatten(given)
    wide = leafwise.widen((g, p)) + tuple(map(_decoded, slots))
    known = {id(value): x for value, x in zip(leaf.arrays, wide, strict=True)}
    known |= {id(value): x for value, x in zip(leaf.scalars, numbers, strict=True)}
    u, *after = elementwise.compute_tile(leaf.results, known, p.shape)
    after = [_encoded(x, old) for x, old in zip(after, slots, strict=True)]
    return jax.tree.leaves(((leafwise.widen(p) + u).astype(p.dtype), after))


def _decoded(slot: Any) -> Array:
    if not is_stored(slot):
        return leafwise.widen(slot)
    return slot.codec.decode_blocks(*slot.parts) if isinstance(slot.codec, Blockwise) else slot.decode()


def _encoded(x: Array, slot: Any) -> Any:
    if not is_stored(slot):
        return x.astype(slot.dtype)
    codec = slot.codec
    return Stored(codec, codec.encode_blocks(x) if isinstance(codec, Blockwise) else codec.encode(x, None))


def _kernel(tile: Callable, leaf: Leaf, width: int, interpret: bool | None, *args: Array) -> list[Array]:
    """`tile` of so many rows at a time."""
    from jax.experimental import pallas as pl  # here: to load it takes longer than all of this library
    from jax.experimental.pallas import triton

    given, numbers = args[: len(args) - len(leaf.scalars)], args[len(args) - len(leaf.scalars) :]
    rows = given[0].shape[0]
    each = math.gcd(rows, max(1, ENTRIES // width))  # a power of two
    tiled = lambda x: pl.BlockSpec((each, *x.shape[1:]), lambda i: (i, 0)[: x.ndim])
    number = pl.BlockSpec((1,), lambda i: (0,))
    results = [given[0], *given[2:]]  # all but the gradient
    aliases = {0: 0, **{k: k - 1 for k in range(2, len(given))}}

    def body(*refs: Any) -> None:
        read, write = refs[: len(args)], refs[len(args) :]
        found = tile([x[...] for x in read[: len(given)]], [x[0] for x in read[len(given) :]])
        for ref, x in zip(write, found, strict=True):
            ref[...] = x

    made = pl.pallas_call(
        body,
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in results],
        grid=(rows // each,),
        in_specs=[*map(tiled, given), *(number for _ in numbers)],
        out_specs=list(map(tiled, results)),
        input_output_aliases=aliases,
        interpret=bool(interpret),
        compiler_params=triton.CompilerParams(num_warps=4),
    )
    return list(made(*args))

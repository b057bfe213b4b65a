"""Which of a state's dimensions follow which dimensions of the parameters, for any transformation."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.core import GradientTransformation, members
from gradtx.placement import axes_of, spec_of
from gradtx.sharding.layout import Layout, devices

Dimension = tuple[int, int]  # a parameter's place among the leaves, and one of its dimensions


def derived(tx: GradientTransformation, shapes: Any, layout: Layout) -> tuple[Any, list[PartitionSpec]]:
    """The state's shapes, and a specification for each of its leaves.

    What `init` makes like the parameters, JAX's types tell: it is traced with the parameters' shardings in their types.
    The rest, which foreign transformations make of shapes, is found by what changes as the parameters' dimensions do:
    a dimension that grows with one of a parameter's alone is sharded like that one, and a dimension made of several of
    one parameter's (flattened, in blocks) over all their axes; what depends on several parameters is replicated.
    """
    state = jax.eval_shape(tx.init, shapes)
    leaves = jax.tree.leaves(state)
    specs = _by_types(tx, shapes, layout) or [PartitionSpec()] * len(leaves)
    unknown = [i for i, x in enumerate(leaves) if x.size > 1 and not any(specs[i])]
    if unknown and any(map(any, layout.specs)) and not _is_ours(tx):
        for i, made_of in _by_differences(tx, shapes, leaves, unknown).items():
            specs[i] = _spec(leaves[i].shape, made_of, [x.shape for x in jax.tree.leaves(shapes)], layout)
    return state, specs


def _is_ours(tx: GradientTransformation) -> bool:
    """Whether all its parts are of this library, which makes slots like the parameters, so that types tell all."""
    foreign = hasattr(tx, "init_fn") or not type(tx).__module__.startswith("gradtx.")
    return not foreign and all(map(_is_ours, members(tx)))


def _by_types(tx: GradientTransformation, shapes: Any, layout: Layout) -> list[PartitionSpec] | None:
    """What the types of the state say; None where `init` cannot be traced with explicit shardings."""
    mesh = layout.typed()
    typed = lambda x, spec: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))
    params = layout.structure.unflatten(map(typed, jax.tree.leaves(shapes), layout.specs))
    try:
        with jax.sharding.use_abstract_mesh(mesh):
            found = jax.tree.leaves(jax.eval_shape(tx.init, params))
    except Exception:  # a foreign `init` may raise whatever it likes: the shapes will tell
        return None
    return [PartitionSpec() if x.sharding is None else x.sharding.spec for x in found]


def _by_differences(
    tx: GradientTransformation, shapes: Any, plain: Sequence[Any], wanted: Sequence[int]
) -> dict[int, list[list[Dimension]]]:
    """Of the wanted leaves of a state, which are given as shapes, the dimensions that each of theirs is made of.

    One dimension of a part of the parameters is doubled at a time. The parts are those whose number has a given binary
    digit, and those that have it not: so a number is read from the changes in 2 log2(n) traces per dimension.
    """
    params, structure = jax.tree.flatten(shapes)
    digits = max(len(params) - 1, 1).bit_length()
    made_of = {i: [[] for _ in plain[i].shape] for i in wanted}

    def changed(dimension: int, chosen: Sequence[bool]) -> dict[int, list[bool]] | None:
        grown = [_doubled(x, dimension) if its else x for x, its in zip(params, chosen, strict=True)]
        try:
            found = jax.tree.leaves(jax.eval_shape(tx.init, structure.unflatten(grown)))
        except Exception:  # no state has such parameters: nothing can be said
            return None
        if [len(x.shape) for x in found] != [len(x.shape) for x in plain]:
            return None
        return {i: [a != b for a, b in zip(found[i].shape, plain[i].shape, strict=True)] for i in wanted}

    for dimension in range(max((len(x.shape) for x in params), default=0)):
        seen = [
            [changed(dimension, [(n >> digit & 1) == bit for n in range(len(params))]) for bit in (0, 1)]
            for digit in range(digits)
        ]
        if any(x is None for pair in seen for x in pair):
            continue
        for i in wanted:
            for j in range(len(plain[i].shape)):
                bits = [[bool(x and x[i][j]) for x in pair] for pair in seen]
                if all(low != high for low, high in bits):  # it depends on one parameter
                    made_of[i][j].append((sum(high << digit for digit, (_, high) in enumerate(bits)), dimension))
    return made_of


def _doubled(x: Any, dimension: int) -> Any:
    shape = [n * 2 if i == dimension else n for i, n in enumerate(x.shape)]
    return jax.ShapeDtypeStruct(shape, x.dtype)


def _spec(
    shape: Sequence[int], made_of: list[list[Dimension]], shapes: list[Sequence[int]], layout: Layout
) -> PartitionSpec:
    """The axes of what each dimension is made of, where they divide it and are not used before.

    One that is as long as one of several that it changes with was chosen by their order: it follows none for certain.
    """
    used: set[str] = set()
    entries = []
    for size, sources in zip(shape, made_of, strict=True):
        chosen = len(sources) > 1 and any(size == shapes[i][k] for i, k in sources)
        one_parameter = len({i for i, _ in sources}) == 1 and not chosen
        axes = [a for i, k in sources for a in axes_of(layout.specs[i][k])] if one_parameter else []
        axes = tuple(a for a in axes if a not in used)
        while axes and size % math.prod(devices(layout.mesh, a) for a in axes):
            axes = axes[:-1]
        used |= set(axes)
        entries.append(axes)
    return spec_of(entries)

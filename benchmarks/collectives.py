"""What devices say to each other in a compiled step: the collectives in its program, and their bytes.

Compiled programs have no noise: what is counted here is what runs. `MODEL` is the tree that the counts in `docs/scaling.md`
and in the tests are of: four layers of a transformer with feed-forward parts, 24 leaves, 42 MB.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from benchmarks.compiled_for import bytes_of

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# A collective's result and kind. Of one in two halves the second has the result alone.
COLLECTIVE = re.compile(rf" = (\S+|\(.*?\)) ({'|'.join(KINDS)})(-start|-done)?\(")

WIDTH = 512
SHAPES = {
    "wq": (WIDTH, WIDTH),
    "wo": (WIDTH, WIDTH),
    "w1": (WIDTH, 4 * WIDTH),
    "w2": (4 * WIDTH, WIDTH),
    "ln": (WIDTH,),
    "b1": (4 * WIDTH,),
}
LAYERS = 4


class Layout(NamedTuple):
    """A mesh of eight devices, and how each of the model's parameters lies on it."""

    mesh: Mapping[str, int]
    specs: Mapping[str, PartitionSpec]


P = PartitionSpec
LAYOUTS = {
    "replicated": Layout({"data": 8}, dict.fromkeys(SHAPES, P())),
    "fsdp": Layout({"fsdp": 8}, {name: P("fsdp", None) if len(shape) == 2 else P() for name, shape in SHAPES.items()}),
    "fsdp x tensor": Layout(
        {"fsdp": 4, "tensor": 2},
        {
            "wq": P("fsdp", "tensor"),
            "wo": P("tensor", "fsdp"),
            "w1": P("fsdp", "tensor"),
            "w2": P("tensor", "fsdp"),
            "ln": P(),
            "b1": P("tensor"),
        },
    ),
}


def mesh_of(layout: str, axis_type: AxisType = AxisType.Auto, devices: Any = None) -> Mesh:
    """The layout's mesh, of the first eight devices or of those that are given."""
    sizes = LAYOUTS[layout].mesh
    devices = jax.devices()[:8] if devices is None else devices
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), (axis_type,) * len(sizes), devices=devices)


def model(layout: str, mesh: Mesh, layers: int = LAYERS, dtype: Any = jnp.float32) -> Any:
    """The model's parameters as shapes with their shardings: enough to compile for."""
    place = {name: NamedSharding(mesh, spec) for name, spec in LAYOUTS[layout].specs.items()}
    leaf = lambda name, shape: jax.ShapeDtypeStruct(shape, dtype, sharding=place[name])
    return {f"layer_{i}": {name: leaf(name, shape) for name, shape in SHAPES.items()} for i in range(layers)}


def filled(model: Any, seed: int = 0) -> Any:
    """The model with normal numbers of size 0.02, each leaf made where it lies."""
    keys = iter(list(jax.random.split(jax.random.key(seed), len(jax.tree.leaves(model)))))
    shardings = jax.tree.map(lambda x: x.sharding, model)
    make = lambda: jax.tree.map(lambda x: 0.02 * jax.random.normal(next(keys), x.shape, x.dtype), model)
    with jax.set_mesh(jax.tree.leaves(shardings)[0].mesh):
        return jax.jit(make, out_shardings=shardings)()


class Counted(NamedTuple):
    """Collectives of one kind."""

    operations: int
    bytes: int  # of their results, on one device; a loop's body counts once


def collectives(compiled: Any) -> dict[str, Counted]:
    """The collectives of a compiled program (or of its text), by kind."""
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    found: dict[str, Counted] = {}
    for shape, kind, half in COLLECTIVE.findall(text):
        if half != "-start":
            operations, total = found.get(kind, Counted(0, 0))
            found[kind] = Counted(operations + 1, total + bytes_of(shape))
    return found


def state_bytes(state: Any) -> int:
    """The bytes that a state takes on one device: of arrays, or of shapes with shardings."""
    leaves = jax.tree.leaves(state)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def lowered(step: Callable, *args: Any) -> Any:
    """The compiled program of a step that takes arrays or shapes with shardings, its first two arguments donated."""
    return jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()

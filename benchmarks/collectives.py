"""What devices say to each other in a compiled step: the collectives in its program, and their bytes.

Compiled programs have no noise: what is counted here is what runs. `model` is the tree that the counts in
`docs/scaling.md` and in the tests are of: four layers of a transformer with feed-forward parts, 24 leaves, 42 MB.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

KINDS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective-permute", "collective-broadcast")
# A computation's name and result. A collective's result and kind; of one in two halves the second has the result alone.
COMPUTATION = re.compile(r"(?:ENTRY )?%(\S+) \(.*\) -> (.*) \{")
COLLECTIVE = re.compile(rf" = (\S+|\(.*?\)) (?:ragged-)?({'|'.join(KINDS)})(-start|-done)?\(")
# A TPU's program has a collective that runs beside others in several fusions: one that starts it, some that carry it on
# and one that ends it. And it has a reduce-scatter as a fusion of an all-reduce and a slice.
ENDS = re.compile(r"%async-collective-done\S* = .*\bcalls=%([^\s,]+)")
CARRIES, REDUCE_SCATTER = "async_collective_fusion", "all-reduce-scatter"
ARRAY = re.compile(r"([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")  # an array's kind, bits and dimensions

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
    bytes: int  # of their results, on one device


def collectives(compiled: Any) -> dict[str, Counted]:
    """The collectives of a compiled program (or of its text), by kind.

    What a loop repeats counts once, and so does what a branch may leave out. A collective of several arrays is one.
    """
    text = compiled if isinstance(compiled, str) else compiled.as_text()
    found: dict[str, Counted] = {}
    ends = set(ENDS.findall(text))
    inside = result = ""
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            inside, result = head.groups()
            continue
        collective = COLLECTIVE.search(line)
        if collective is None or collective[3] == "-start" or inside in ends or inside.startswith(CARRIES):
            continue
        shape, kind, _ = collective.groups()
        if inside.startswith(REDUCE_SCATTER):
            shape, kind = result, "reduce-scatter"
        operations, total = found.get(kind, Counted(0, 0))
        found[kind] = Counted(operations + 1, total + bytes_of(shape))
    return found


def bytes_of(shape: str) -> int:
    """The bytes of an array or of a tuple of arrays, as programs write their shapes."""
    arrays = ((8 if kind == "pred" else int(bits or 0), dimensions) for kind, bits, dimensions in ARRAY.findall(shape))
    return sum(bits * math.prod(int(n) for n in dimensions.split(",") if n) // 8 for bits, dimensions in arrays)


def state_bytes(state: Any) -> int:
    """The bytes that a state takes on one device: of arrays, or of shapes with shardings."""
    leaves = jax.tree.leaves(state)
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)


def lowered(step: Callable, *args: Any) -> Any:
    """The compiled program of a step that takes arrays or shapes with shardings, its first two arguments donated."""
    return jax.jit(step, donate_argnums=(0, 1)).lower(*args).compile()

"""Where the parameters and the batch lie on the mesh."""

import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from examples.train_lm_sharded.options import AXES, OptionError

# Matrices whose inputs, their rows, come in parts from the matrix before, which the tensor axis divided by columns.
BY_ROWS = {"out", "down", "embedding"}


def make_mesh(sizes: Mapping[str, int]) -> Mesh:
    """A mesh of all devices of all processes; a size of -1 takes what is left over.

    Raises:
      OptionError: the sizes do not make up the number of devices.
    """
    devices, rest = jax.device_count(), math.prod(size for size in sizes.values() if size > 0)
    written = ",".join(f"{name}={size}" for name, size in sizes.items() if size != 1) or "data=1"
    there = "there is 1" if devices == 1 else f"there are {devices}"
    if -1 in sizes.values() and devices % rest == 0:
        sizes = {name: devices // rest if size == -1 else size for name, size in sizes.items()}
    elif -1 in sizes.values():
        raise OptionError(f"--mesh {written}: {rest} does not divide the number of devices: {there}")
    elif rest != devices:
        raise OptionError(f"--mesh {written} is of {rest} devices, and {there}")
    return jax.make_mesh(tuple(sizes[a] for a in AXES), AXES, (AxisType.Auto,) * len(AXES))


def batch_sharding(mesh: Mesh, batch: int) -> NamedSharding:
    """The batch is divided by data and by fsdp.

    Raises:
      OptionError: it cannot be.
    """
    parts = mesh.shape["data"] * mesh.shape["fsdp"]
    if batch % parts:
        raise OptionError(f"--batch must be a multiple of data x fsdp, {parts}, got {batch}")
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def param_shardings(params: Any, mesh: Mesh) -> Any:
    """A sharding for each parameter: matrices are divided by fsdp and by tensor, vectors are everywhere.

    An axis that does not divide a dimension leaves it whole.
    """

    def entry(axis: str, size: int) -> str | None:
        return axis if mesh.shape[axis] > 1 and size % mesh.shape[axis] == 0 else None

    def leaf(path: tuple, p: Any) -> NamedSharding:
        names = {getattr(key, "key", None) for key in path}
        axes = ("tensor", "fsdp") if names & BY_ROWS else ("fsdp", "tensor")
        entries = map(entry, axes, p.shape) if p.ndim == 2 else ()
        return NamedSharding(mesh, PartitionSpec(*entries))

    return jax.tree_util.tree_map_with_path(leaf, params)

"""How parameters lie: their shapes, the mesh, and a specification for each."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec, Sharding

from gradtx import paths
from gradtx.placement import axes_of


class Layout(NamedTuple):
    """Parameters on a mesh, leaf by leaf. Hashable."""

    structure: Any  # of the parameters
    names: tuple[str, ...]
    specs: tuple[PartitionSpec, ...]
    mesh: Any  # a Mesh, or an AbstractMesh; None: one device, which is `place`
    place: Sharding | None = None

    def shardings(self) -> Any:
        """The parameters' tree with a sharding for each."""
        if self.mesh is None:
            return self.structure.unflatten([self.place] * self.structure.num_leaves)
        return self.structure.unflatten([NamedSharding(self.mesh, spec) for spec in self.specs])

    def typed(self) -> Any:
        """The mesh as types know it, each of its axes explicit."""
        abstract = self.abstract()
        return abstract.update_axis_types(dict.fromkeys(abstract.axis_names, AxisType.Explicit))

    def abstract(self) -> Any:
        """The mesh without its devices."""
        return self.mesh.abstract_mesh if isinstance(self.mesh, Mesh) else self.mesh


def is_sharding(x: Any) -> bool:
    """Whether it says where an array lies."""
    return isinstance(x, (Sharding, PartitionSpec))


def layout(owner: str, params: Any, shardings: Any = None) -> Layout:
    """The layout of parameters.

    Args:
      params: arrays, or shapes; where `shardings` is None, with shardings of their own.
      shardings: a tree, or a prefix of it, of `NamedSharding`s, of arrays that have them, or of `PartitionSpec`s on the
        mesh that is set; None in it means replicated.

    Raises:
      ValueError: a leaf's sharding is not known, or does not fit its shape, or there are two meshes.
    """
    leaves, structure = jax.tree.flatten(params)
    names = paths.names(params)
    given = (
        [getattr(x, "sharding", None) for x in leaves] if shardings is None else _broadcast(owner, shardings, params)
    )
    meshes = {x.mesh for x in given if isinstance(x, NamedSharding)}
    if any(isinstance(x, PartitionSpec) for x in given) and not meshes:
        meshes = {found} if not (found := jax.sharding.get_mesh()).empty else meshes
        if not meshes:
            raise ValueError(f"`{owner}`: a `PartitionSpec` needs a mesh: set one, `with jax.set_mesh(mesh)`.")
    if len(meshes) > 1:
        raise ValueError(f"`{owner}`: the parameters lie on {len(meshes)} meshes: {list(meshes)}; give them one.")
    if not meshes:
        places = {x for x in given if x is not None}
        if len(places) > 1 or (leaves and not places):
            raise ValueError(
                f"`{owner}`: where the parameters lie is not known (found {places or 'none'}): give `param_shardings`, "
                "a tree of `jax.sharding.NamedSharding`."
            )
        return Layout(structure, tuple(names), (PartitionSpec(),) * len(leaves), None, places.pop() if places else None)
    mesh = meshes.pop()
    specs = [_spec(owner, name, x, mesh, p) for name, x, p in zip(names, given, leaves, strict=True)]
    return Layout(structure, tuple(names), tuple(specs), mesh)


def shapes_of(params: Any) -> Any:
    """The parameters as shapes and dtypes, without their shardings."""
    dtype = lambda x: x.dtype if hasattr(x, "dtype") else jnp.result_type(x)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(jnp.shape(x), dtype(x)), params)


def _broadcast(owner: str, shardings: Any, params: Any) -> list:
    """A sharding for each leaf of the parameters, from a tree that may be a prefix of theirs."""
    leaf = lambda x: x is None or is_sharding(x) or hasattr(x, "sharding")
    known = lambda x: PartitionSpec() if x is None else x if is_sharding(x) else x.sharding
    places = jax.tree.map(known, shardings, is_leaf=leaf)
    try:
        return jax.tree.leaves(jax.tree.broadcast(places, params, is_leaf=is_sharding), is_leaf=is_sharding)
    except ValueError as error:
        raise ValueError(f"`{owner}`: param_shardings has another structure than the parameters: {error}.") from error


def _spec(owner: str, name: str, sharding: Any, mesh: Any, p: Any) -> PartitionSpec:
    """The specification of a leaf, checked; replicated for one that lies on a single device."""
    spec = sharding.spec if isinstance(sharding, NamedSharding) else sharding
    if not isinstance(spec, PartitionSpec):
        return PartitionSpec()
    shape = jnp.shape(p)
    entries = [axes for axes in spec if axes is not None]
    if len(spec) > len(shape):
        raise ValueError(f"`{owner}`: {name} has {len(shape)} dimensions, and its sharding {spec} has {len(spec)}.")
    unknown = [a for axes in entries for a in axes_of(axes) if a not in mesh.shape]
    if unknown:
        raise ValueError(f"`{owner}`: {name} is sharded over {unknown}, but the mesh has the axes {mesh.axis_names}.")
    for size, axes in zip(shape, spec, strict=False):
        if size % (parts := devices(mesh, axes)):
            raise ValueError(f"`{owner}`: {name} has a dimension of {size}, which {axes!r} would divide by {parts}.")
    return PartitionSpec(*spec, *[None] * (len(shape) - len(spec)))


def devices(mesh: Any, entry: Any) -> int:
    """By how many devices an entry of a specification divides a dimension."""
    return math.prod(mesh.shape[axis] for axis in axes_of(entry))

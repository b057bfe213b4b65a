"""ZeRO (Rajbhandari et al., 2020), stage 1: state divided over the devices that hold the same parameters."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gradtx.placement import axes_of, spec_of
from gradtx.sharding.layout import devices, layout


def zero(params: Any, param_shardings: Any = None, axis: Any = "data", *, min_bytes: int = 0) -> Any:
    """Shardings for the state of replicated parameters: those of the parameters, and one dimension more is divided.

    Give them in place of the parameters' to `state_shardings` or `init_sharded`, or to `on_mesh`, which also makes each
    device compute the part of the update whose state it keeps:

        tx = on_mesh(adamw(1e-3), zero(params, shardings, "data"))

    Of each parameter the largest dimension that is not sharded and that the axis divides is sharded over it; of one
    that has none, the largest of the dimensions that it divides further. One that it cannot divide stays as it is.

    Args:
      params: arrays or shapes.
      param_shardings: a tree of `NamedSharding`s, or a prefix of one; None, those of the parameters.
      axis: the mesh axis, or several, over which the parameters are replicated.
      min_bytes: parameters below stay as they are: for them a message costs more than it saves.

    Returns: a tree of `NamedSharding`s with the parameters' structure.
    Raises:
      ValueError: the mesh has no such axis, or there is no mesh.
    Source: Rajbhandari et al., ZeRO, SC 2020 (arXiv:1910.02054), P_os.
    """
    found = layout("zero", params, param_shardings)
    if found.mesh is None:
        raise ValueError("`zero`: the parameters lie on one device: give `param_shardings` on a mesh.")
    axes = axes_of(axis)
    if unknown := [a for a in axes if a not in found.mesh.shape]:
        raise ValueError(f"`zero`: axis has {unknown}, but the mesh has the axes {found.mesh.axis_names}.")
    parts = devices(found.mesh, axes)

    def leaf(p: Any, spec: PartitionSpec) -> NamedSharding:
        shape = jnp.shape(p)
        taken = {a for entry in spec for a in axes_of(entry)}
        left = [n // devices(found.mesh, entry) for n, entry in zip(shape, spec, strict=True)]
        divisible = [k for k, n in enumerate(left) if n and n % parts == 0]
        entries = [axes_of(entry) for entry in spec]
        if divisible and not taken & set(axes) and p.size * p.dtype.itemsize >= min_bytes:
            k = max(divisible, key=lambda k: (spec[k] is None, left[k]))
            entries[k] += axes
        return NamedSharding(found.mesh, spec_of(entries))

    return found.structure.unflatten(map(leaf, jax.tree.leaves(params), found.specs))

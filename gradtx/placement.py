"""Devices: where arrays lie, and whether there is more than one place."""

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

JOINING = "xla_cpu_use_multi_output_fusion"  # the option in XLA_FLAGS


def on_one_device() -> bool:
    """Whether arrays cannot be sharded, as far as tracing can know: there is one device, and no mesh is set.

    On several devices XLA gathers the operands of a reduction with two results, and moves arrays that are added in
    different shardings. So what saves passes over memory in such ways is for one device alone.
    """
    return jax.device_count() == 1 and jax.sharding.get_abstract_mesh().empty


def joins_loops() -> bool:
    """Whether XLA makes one loop of several only if it is handed programs whose results share nothing: see `separate`.

    So does its CPU compiler where it is asked to join loops. Those for GPUs and TPUs join them as they are.
    """
    return JOINING in os.environ.get("XLA_FLAGS", "") and jax.default_backend() == "cpu" and on_one_device()


def place_beside(state: Any, params: Any) -> Any:
    """Puts the state's leaves that lie anywhere (counts, scalars) where the params were put: on their device, or
    replicated on their mesh, in their memory.

    Without it the first compiled step would move them, and the second step would compile again.
    """
    places = {s for x in jax.tree.leaves(params) if (s := sharding_of(x)) is not None and x.committed}
    meshes = {s.mesh for s in places if isinstance(s, NamedSharding)}
    memories = {s.memory_kind for s in places}
    memory = memories.pop() if len(memories) == 1 else None
    if len(meshes) == 1:
        place = NamedSharding(meshes.pop(), PartitionSpec(), memory_kind=memory)
        elsewhere = lambda x: len(x.sharding.device_set) == 1 and not isinstance(x.sharding, NamedSharding)
    elif len(places) == 1 and isinstance(place := places.pop(), SingleDeviceSharding):
        elsewhere = lambda x: not x.committed
    else:
        return state
    return jax.tree.map(lambda x: jax.device_put(x, place) if sharding_of(x) is not None and elsewhere(x) else x, state)


def manual_axes(x: Any) -> frozenset:
    """The mesh axes of `jax.shard_map` along which a value may differ from device to device."""
    kind = jax.typeof(x)
    return frozenset(getattr(getattr(kind, "manual_axis_type", kind), "varying", None) or getattr(kind, "vma", ()))


def varying_along(values: Any, axes: Iterable[str]) -> Any:
    """The arrays as ones that may differ along some manual axes, by their types."""
    missing = lambda x: tuple(name for name in axes if name not in manual_axes(x))
    return jax.tree.map(lambda x: jax.lax.pcast(x, missing(x), to="varying") if missing(x) else x, values)


def differing_like(values: Any, like: Any, *, but: Sequence[str] = ()) -> Any:
    """The arrays as ones that may differ along every manual axis along which a leaf of `like` does, but for some axes.

    Where a branch or a loop depends on such a leaf, so does all that comes out of it, and JAX wants the types to agree.
    """
    return varying_along(values, frozenset().union(*map(manual_axes, jax.tree.leaves(like))) - frozenset(but))


def axes_of(entry: Any) -> tuple[str, ...]:
    """The mesh axes that an entry of a `PartitionSpec` names."""
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def spec_of(axes: Iterable[Sequence[str]]) -> PartitionSpec:
    """The `PartitionSpec` that names these mesh axes in its entries. As compiled programs write it, without the last
    ones that name none: to `jit` specs are equal only if they are written alike.
    """
    entries = [tuple(names) if len(names) > 1 else names[0] if names else None for names in axes]
    while entries and entries[-1] is None:
        entries.pop()
    return PartitionSpec(*entries)


def sharding_of(x: Any) -> Any:
    """Where an array lies; None where that is not known: in a trace, or of a shape alone."""
    return x.sharding if isinstance(x, jax.Array) and not isinstance(x, jax.core.Tracer) else None


def zeros_of_axes(
    x: Any,
    axes: Sequence[tuple[int, ...]],
    *,
    shape: Sequence[int] | None = None,
    dtype: Any = None,
    along: Mapping[int, Sequence[int]] | None = None,
) -> Array:
    """Zeros beside an array: on its devices, in its memory, each dimension sharded as the axes that it is made of.

    Args:
      axes: of each dimension the axes of `x`, whose product it is; none where it is made of no axis.
      shape: None, the product of those axes' sizes, 1 of none.
      dtype: None, that of `x`.
      along: of some dimensions, axes of `x`: they are sharded along all mesh axes that these are, where they divide.
    """
    shape = [math.prod(x.shape[i] for i in group) for group in axes] if shape is None else shape
    dtype = x.dtype if dtype is None else dtype
    typed, place = jax.typeof(x).sharding, sharding_of(x)
    sharding = typed if place is None and any(typed.spec) else place
    if isinstance(sharding, NamedSharding) and (sharding is typed or x.committed):
        spec = [*sharding.spec, *[None] * (x.ndim - len(sharding.spec))]
        kept = lambda group: axes_of(spec[group[0]]) if group and not any(spec[i] for i in group[1:]) else ()
        entries = [kept(group) for group in axes]
        for dimension, others in (along or {}).items():
            used = {name for i in others for name in axes_of(spec[i])}
            names = [name for name in sharding.mesh.axis_names if name in used]
            if names and shape[dimension] % math.prod(sharding.mesh.shape[name] for name in names) == 0:
                entries[dimension] = tuple(names)
        sharding = NamedSharding(sharding.mesh, spec_of(entries), memory_kind=sharding.memory_kind)
        if sharding_of(x) is None:
            return differing_like(jnp.zeros(shape, dtype, out_sharding=sharding), x)
        return jnp.zeros(shape, dtype, device=sharding)
    if isinstance(place, SingleDeviceSharding) and x.committed:
        return jnp.zeros(shape, dtype, device=place)
    return differing_like(jnp.zeros(shape, dtype), x)


def in_place_of(zeros: Array, values: Array) -> Array:
    """Numbers of their dtype, which broadcast to them, in the place of zeros, and where those lie."""
    place = sharding_of(zeros)
    if place is None or not zeros.committed:
        return zeros + values
    return jax.device_put(jnp.broadcast_to(values, zeros.shape), place)


def to_compute_with(x: Array) -> Array:
    """The array in the memory of its devices that they compute with."""
    place = sharding_of(x)
    if place is None or not x.committed:
        return x
    usual = next(iter(place.device_set)).default_memory().kind
    return x if place.memory_kind == usual else jax.device_put(x, place.with_memory_kind(usual))


def whole_everywhere(x: jax.Array) -> jax.Array:
    """The array gathered on every device, where its type says that it is sharded: such an array cannot be flattened."""
    sharding = jax.typeof(x).sharding
    return jax.sharding.reshard(x, NamedSharding(sharding.mesh, PartitionSpec())) if any(sharding.spec) else x


def laid_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array sharded as the type of `like` says, if it says so: the inverse of `whole_everywhere`."""
    sharding = jax.typeof(like).sharding
    return jax.sharding.reshard(x, sharding) if any(sharding.spec) else x


def outside_of_types(update: Callable, updates: Any, state: Any, params: Any, **extra: Any) -> Any:
    """`update(updates, state, params)` with XLA to decide where arrays lie, also where the types say it.

    For functions that were not written for explicit axes: they may contract or select what is sharded in several ways.
    """
    around = [
        jax.sharding.get_abstract_mesh(),
        *(jax.typeof(x).sharding.mesh for x in jax.tree.leaves((updates, state))),
    ]
    if not any(mesh.explicit_axes for mesh in around):
        return update(updates, state, params, **extra)
    spec = lambda x: jax.typeof(x).sharding.spec
    call = lambda *args: update(*args, **extra)
    freely: Any = jax.sharding.auto_axes(call, out_sharding=jax.tree.map(spec, (updates, state)))
    return freely(updates, state, params)

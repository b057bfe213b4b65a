"""State on a mesh: where it shall lie, made there, described for a checkpoint, and kept there by a compiled step."""

import functools
from contextlib import nullcontext
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh, NamedSharding

from gradtx.apply import apply_updates
from gradtx.core import GradientTransformation, as_transformation
from gradtx.sharding.derive import derived
from gradtx.sharding.layout import Layout, is_sharding, layout, shapes_of
from gradtx.sharding.mesh import OnMesh, on_mesh


def state_shardings(
    tx: Any, params_or_shapes: Any, param_shardings: Any = None, *, memory_kind: str | None = None
) -> Any:
    """Where each leaf of a transformation's state lies best: sharded as the parameters' dimensions that it is made of.

    Moments lie as their parameter; Adafactor's row means are sharded as the rows; a stack of moments as each of them;
    codes and scales of blocks over the axes of what they encode; counts and whatever is made of several parameters is
    replicated. A sharding changes no number: where the derivation finds nothing, memory is what it costs.

    Args:
      tx: any transformation, ours or foreign; its `init` is traced, for a foreign one several times.
      params_or_shapes: arrays, or `jax.ShapeDtypeStruct`s.
      param_shardings: a tree of `NamedSharding`s, or a prefix of one, or `PartitionSpec`s on the mesh that is set.
        None: the shardings that the parameters have. `zero` gives those for ZeRO-1.
      memory_kind: of what is no scalar, such as "pinned_host"; None, the device's own.

    Returns: a tree of shardings with the state's structure, for `out_shardings` or a checkpoint.
    Raises:
      ValueError: where the parameters lie is not known, on two meshes, or does not fit their shapes.
    """
    return jax.tree.map(
        lambda x: x.sharding, abstract_state(tx, params_or_shapes, param_shardings, memory_kind=memory_kind)
    )


def abstract_state(
    tx: Any, params_or_shapes: Any, param_shardings: Any = None, *, memory_kind: str | None = None
) -> Any:
    """The state as shapes, dtypes and shardings, without arrays: what Orbax restores a checkpoint by, on any mesh.

        checkpointer.restore(path, {"params": shapes, "state": abstract_state(tx, shapes)})

    Arguments and errors: `state_shardings`.
    """
    tx, found = _known(tx, params_or_shapes, param_shardings)
    shapes = shapes_of(params_or_shapes)
    if found.mesh is None:
        far = found.place.with_memory_kind(memory_kind) if found.place and memory_kind else found.place
        alone = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=far if x.ndim else found.place)
        return jax.tree.map(alone, jax.eval_shape(tx.init, shapes))
    state, specs = derived(tx, shapes, found)
    leaves, structure = jax.tree.flatten(state)

    def leaf(x, spec):
        place = NamedSharding(found.mesh, spec, memory_kind=memory_kind if x.ndim else None)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

    return structure.unflatten(map(leaf, leaves, specs))


def init_sharded(tx: Any, params: Any, param_shardings: Any = None, *, memory_kind: str | None = None) -> Any:
    """`tx.init(params)`, made where it shall lie, in one compiled program: no device ever holds more than its part.

    The counts are replicated from the start, so that the second step compiles nothing. On Auto and Explicit meshes,
    with or without `jax.set_mesh`, on several processes.

    Args:
      params: arrays on the mesh, or on one device.
      others, and errors: `state_shardings`.
    """
    places = state_shardings(tx, params, param_shardings, memory_kind=memory_kind)
    tx, found = _known(tx, params, param_shardings)
    with _within(found.mesh):
        return jax.jit(lambda tx, params: tx.init(params), out_shardings=places)(tx, params)


def jit_update(tx: Any, param_shardings: Any, state_shardings: Any, *, donate: bool = True) -> "Step":
    """The compiled part of a training step after the gradients: `params, state = step(params, state, grads, **extra)`.

    It is compiled once, for parameters and state go out where they came in; and their buffers are donated, so that
    none is copied. It runs `on_mesh`, unless `tx` does already: each parameter's update is computed where its moments
    lie, or else where it lies itself.

    Args:
      param_shardings: a tree of shardings, or the parameters, as arrays or shapes that have them.
      state_shardings: a tree of shardings with the state's structure, or the state.
      donate: whether parameters and state are handed over: after the call the old ones are gone.

    Returns: a function with the methods of a jitted one: `lower(params, state, grads)`.
    Raises:
      ValueError: as `on_mesh`.
    """
    owner = as_transformation("jit_update", "tx", tx)
    places = jax.tree.map(lambda x: x if is_sharding(x) else x.sharding, (param_shardings, state_shardings))
    given: Any = owner if isinstance(owner, OnMesh) else on_mesh(owner, param_shardings)
    near = jax.tree.map(_near, places[1])
    far = any(a != b for a, b in zip(jax.tree.leaves(places[1]), jax.tree.leaves(near), strict=True))

    def step(params, state, grads, extra):
        state = jax.tree.map(jax.device_put, state, near) if far else state
        tx = given if given is owner else on_mesh(owner, _beside_moments(params, state, places[0], near))
        updates, state = tx.update(grads, state, params, **extra)
        return apply_updates(params, updates), state

    compiled = jax.jit(step, out_shardings=places, donate_argnums=(0, 1) if donate else ())
    return Step(compiled, given.layout.mesh)


def _beside_moments(params: Any, state: Any, param_places: Any, state_places: Any) -> Any:
    """Of each parameter the sharding of the first array in the state of its shape whose path ends in the parameter's.

    Several in a parameter's place, such as statistics of its sides, are none of them in a slot of the parameters.
    """
    with_paths = lambda tree: jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves, places = with_paths(params), jax.tree.leaves(param_places)
    known = {path for path, _ in leaves}
    ends = lambda path: [n for n in range(len(path)) if path[n:] in known]
    slots: dict[tuple, Any] = {}
    for (path, x), place in zip(with_paths(state), jax.tree.leaves(state_places), strict=True):
        for n in ends(path) if known != {()} else [len(path)]:
            if not ends(path[:n]):
                slots.setdefault((path[n:], x.shape), place)
    found = [slots.get((path, jnp.shape(p)), place) for (path, p), place in zip(leaves, places, strict=True)]
    return jax.tree.structure(params).unflatten(found)


def _near(place: Any) -> Any:
    """A sharding in the memory that devices compute with."""
    if isinstance(place, NamedSharding):
        return NamedSharding(place.mesh, place.spec)
    return place.with_memory_kind(next(iter(place.device_set)).default_memory().kind)


class Step:
    """What `jit_update` returns: a compiled step that is called on its mesh."""

    def __init__(self, compiled: Any, mesh: Any) -> None:
        self._compiled, self._mesh = compiled, mesh
        functools.update_wrapper(self, compiled)

    def __call__(self, params: Any, state: Any, grads: Any, **extra: Any) -> Any:
        """The next parameters and state."""
        with _within(self._mesh):
            return self._compiled(params, state, grads, extra)

    def lower(self, params: Any, state: Any, grads: Any, **extra: Any) -> Any:
        """The program before it is compiled, as `jax.jit(...).lower`."""
        with _within(self._mesh):
            return self._compiled.lower(params, state, grads, extra)


def _known(tx: Any, params: Any, param_shardings: Any) -> tuple[GradientTransformation, Layout]:
    """The transformation without `on_mesh` around it, and how the parameters lie."""
    tx = as_transformation("state_shardings", "tx", tx)
    if isinstance(tx, OnMesh):
        tx, param_shardings = tx.tx, tx.layout.shardings() if param_shardings is None else param_shardings
    return tx, layout("state_shardings", params, param_shardings)


def _within(mesh: Any) -> Any:
    """The mesh set, where its axes are explicit, which `jit` needs for what it makes of nothing."""
    explicit = isinstance(mesh, Mesh) and AxisType.Explicit in mesh.axis_types
    return jax.set_mesh(mesh) if explicit and jax.sharding.get_abstract_mesh().empty else nullcontext()

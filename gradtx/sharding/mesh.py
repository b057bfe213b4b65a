"""A transformation that knows how its parameters lie on a mesh."""

import functools
from contextlib import nullcontext
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx import clock, paths
from gradtx.clock import now
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.partial import FUNCTIONS
from gradtx.placement import axes_of, spec_of
from gradtx.recipe import Recipe
from gradtx.sharding.derive import derived
from gradtx.sharding.layout import Layout, layout, shapes_of
from gradtx.value import part, static


def on_mesh(tx: Any, param_shardings: Any, params: Any = None) -> GradientTransformation:
    """The transformation, told how the parameters lie on a mesh. It computes the same.

    In `jit` on an Auto mesh, the kind that `jax.make_mesh` makes when asked for `AxisType.Auto`, a program does not see
    where its arrays lie: XLA decides what to gather, and where the state goes. Here `update` runs with the shardings in
    the types, as on an Explicit mesh, so that each formula takes the fewest messages: one for all norms, matrices whole
    on one device each. What `init` makes lies where `state_shardings` says, also in `jit`, and stays there.

    With `zero(params, shardings, axis)` in place of the parameters' own shardings each device keeps and computes its
    part of the state (ZeRO-1).

    It stands around the whole recipe: `on_mesh(chain(...), shardings)`, hence also in `nnx.Optimizer`. On one device,
    in eager code, and where every mesh axis is manual (`jax.shard_map`), `update` is that of `tx`.

    Args:
      tx: any transformation, ours or foreign.
      param_shardings: a tree of `NamedSharding`s on one mesh with the parameters' structure; or the parameters
        themselves, as arrays or shapes that have them; or a prefix of such a tree, if `params` is given.
      params: the parameters, or their shapes.

    State: that of `tx`. Reads: what `tx` reads. Extra arguments with the parameters' structure are taken to lie as the
      parameters do, `value_fn` and `grad_fn` are called outside of the types, and any other array is replicated.
    Raises:
      ValueError: two meshes, or a sharding that does not fit its parameter.
    """
    tx = as_transformation("on_mesh", "tx", tx)
    places = param_shardings if params is None else params
    found = layout("on_mesh", _shapes(places), places if params is None else param_shardings)
    return OnMesh(tx, found)


def _shapes(places: Any) -> Any:
    """Stand-ins for parameters of which the shardings alone are given: of any rank, of a size that all axes divide."""

    def leaf(x):
        if hasattr(x, "shape") and not isinstance(x, jax.sharding.Sharding):
            return x
        rank = len(x.spec) if isinstance(x, NamedSharding) else 0
        size = x.mesh.size if isinstance(x, NamedSharding) else 1
        return jax.ShapeDtypeStruct((size,) * rank, jnp.float32, sharding=x)

    return jax.tree.map(leaf, places)


@transformation
class OnMesh(GradientTransformation):
    """What `on_mesh` returns."""

    tx: GradientTransformation = part()
    layout: Layout = static()

    @property
    def name(self) -> str:
        return self.tx.name

    def init(self, params):
        state = self.tx.bare_init(params)
        if self.layout.mesh is None or not _free(_mesh_of(params, self.layout)):
            return state
        return jax.tree.map(self._placed, state, self._state_specs(params))

    def update(self, updates, state, params=None, **extra):
        outer: Any = None if self.layout.mesh is None else _mesh_of(updates, self.layout)
        free = _free(outer)
        if not free or not any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(updates)):
            return self.tx.bare_update(updates, state, params, **extra)
        typed = outer.update_axis_types(dict.fromkeys(free, AxisType.Explicit))
        state_specs = self._state_specs(updates if params is None else params)
        entered = lambda tree: jax.tree.map(_laid, tree, self._specs(tree))
        with jax.sharding.use_abstract_mesh(typed):
            everywhere = lambda x: _laid(x, PartitionSpec()) if isinstance(x, jax.Array) else x
            tx, time = jax.tree.map(everywhere, (self.tx, now()))
            around = {name: self._outside(f, outer, typed) for name, f in extra.items() if name in FUNCTIONS}
            arrays = {name: entered(x) for name, x in extra.items() if name not in around}
            with nullcontext() if time is None else clock.time(time):
                outgoing, new_state = tx.bare_update(
                    entered(updates), jax.tree.map(_laid, state, state_specs), entered(params), **arrays, **around
                )
            new_state = jax.tree.map(_laid, new_state, state_specs)
            if not outer.auto_axes:  # the types outside say where updates lie: there they lie as before
                outgoing = jax.tree.map(lambda new, old: _laid(new, jax.typeof(old).sharding.spec), outgoing, updates)
        return _untyped(outgoing, outer), _untyped(new_state, outer)

    def eval_params(self, state, params):
        return self.tx.eval_params(state, params)

    def recipe(self) -> Any:
        return Recipe("on_mesh", (self.tx, self.layout.shardings()))

    def _specs(self, tree: Any) -> Any:
        """A specification for each leaf: the parameter's of the same name and no fewer dimensions, else replicated."""
        specs = dict(zip(self.layout.names, self.layout.specs, strict=True))
        leaves, structure = jax.tree.flatten(tree)
        found = [specs.get(name, PartitionSpec()) for name in paths.names(tree)]
        fits = lambda x, spec: spec if jnp.ndim(x) >= len(spec) else PartitionSpec()
        return structure.unflatten(map(fits, leaves, found))

    def _state_specs(self, params: Any) -> Any:
        """A specification for each leaf of the state."""
        if unknown := set(paths.names(params)) - set(self.layout.names):
            raise ValueError(f"`on_mesh`: param_shardings has none for {min(unknown)!r}: it has {self.layout.names}.")
        shapes = shapes_of(params)
        places = [NamedSharding(self.layout.mesh, spec) for spec in jax.tree.leaves(self._specs(params))]
        state, found = derived(self.tx, shapes, layout("on_mesh", shapes, jax.tree.structure(params).unflatten(places)))
        return jax.tree.structure(state).unflatten(found)

    def _placed(self, x: Any, spec: PartitionSpec) -> Any:
        """A leaf of a new state where it shall lie."""
        if isinstance(x, jax.core.Tracer):
            explicit = jax.typeof(x).sharding.mesh.explicit_axes
            place = NamedSharding(self.layout.mesh, spec)
            return _laid(x, spec) if explicit else jax.lax.with_sharding_constraint(x, place)
        return jax.device_put(x, NamedSharding(self.layout.mesh, spec))

    def _outside(self, function: Any, outer: Any, typed: Any) -> Any:
        """A function of the parameters that was written outside of the types, to be called inside."""

        @functools.wraps(function)
        def called(*args: Any, **kwargs: Any) -> Any:
            args, kwargs = _untyped((args, kwargs), outer)
            with jax.sharding.use_abstract_mesh(outer):
                found = function(*args, **kwargs)
            with jax.sharding.use_abstract_mesh(typed):
                return jax.tree.map(_laid, found, self._specs(found))

        return None if function is None else called


def _mesh_of(tree: Any, layout: Layout) -> Any:
    """The mesh as the types know it here: that which is set, or that of an array, or else the layout's."""
    around = [jax.sharding.get_abstract_mesh(), *(jax.typeof(x).sharding.mesh for x in jax.tree.leaves(tree))]
    return next((mesh for mesh in around if not mesh.empty), layout.abstract())


def _free(mesh: Any) -> tuple[str, ...]:
    """The axes that are not manual."""
    return () if mesh is None else tuple(mesh.auto_axes + mesh.explicit_axes)


def _laid(x: Any, spec: PartitionSpec) -> Any:
    """The array with the specification in its type, of the axes that are not manual."""
    if not hasattr(x, "dtype") and not isinstance(x, (int, float, complex)):
        return x
    manual = jax.sharding.get_abstract_mesh().manual_axes
    return jax.sharding.reshard(
        jnp.asarray(x), spec_of([a for a in axes_of(entry) if a not in manual] for entry in spec)
    )


def _untyped(tree: Any, outer: Any) -> Any:
    """The arrays as what stands outside knows them: sharded by type along the explicit axes there alone."""

    def leaf(x):
        if not isinstance(x, jax.core.Tracer):
            return x
        spec = jax.typeof(x).sharding.spec
        return jax.sharding.reshard(
            x, spec_of([a for a in axes_of(entry) if a in outer.explicit_axes] for entry in spec)
        )

    with jax.sharding.use_abstract_mesh(outer):
        return jax.tree.map(leaf, tree)

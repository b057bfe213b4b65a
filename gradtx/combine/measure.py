"""Links that measure the updates that pass them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx.core import GradientTransformation, Updates, as_transformation, transformation
from gradtx.placement import differing_like
from gradtx.recipe import Recipe
from gradtx.value import Function, part, state, static


@state
class SnapshotState(NamedTuple):
    """State of `snapshot`."""

    measurement: dict[str, Any]  # the last one, by its name; zeros before the first


@transformation
class snapshot(GradientTransformation):
    """Leaves the updates as they are, and keeps in its state what a function says of them.

        tx = chain(adam(1e-3), snapshot("norm", global_norm), clip_by_global_norm(1.0))
        ...
        tree.get(state, "norm")

    Args:
      measure_name: under which `tree.get` finds it.
      measure: from the updates, in float32 or wider, to arrays.

    State: what is measured. Reads: updates only.
    """

    measure_name: str = static()
    measure: Callable = static()

    def init(self, params):
        return SnapshotState({self.measure_name: nothing(self.measure, params)})

    def update(self, updates, state, params=None, **extra):
        return updates, SnapshotState({self.measure_name: jax.tree.map(jnp.asarray, self.measure(updates))})


@state
class MonitorState(NamedTuple):
    """State of `monitor` with measures."""

    measurements: dict[str, Any]  # the last ones, by name; zeros before the first
    measure_states: tuple[Any, ...]  # of the measures, in the order of their names; () of one that has none


def _measures(owner: str, name: str, measures: Any) -> dict:
    """Measures by name; plain functions as values."""
    if not all(map(callable, measures.values())):
        measures = {k: x if callable(x) else as_transformation(owner, f"{name}[{k!r}]", x) for k, x in measures.items()}
    # sorted, as JAX rebuilds a dict: the states are in this order
    return {k: Function(x) if jax.tree_util.all_leaves([x]) else x for k, x in sorted(measures.items())}


@transformation
class measured(GradientTransformation):
    """What `monitor` returns for a dict of measures: leaves the updates as they are, and keeps measurements of them.

    Args:
      measures: by name, functions of the updates, or what `measure_with_ema` makes.

    State: what is measured. Reads: updates only.
    Differs from Optax: before the first update the measurements are zeros, not missing, so that the state keeps its
      structure and a step with it scans.
    """

    measures: Any = part(convert=_measures)

    def init(self, params):
        states = tuple(x.bare_init(params) if _remembers(x) else () for x in self.measures.values())
        found = jax.eval_shape(lambda p, s: self._measured(p, s, p, {})[0], params, states)
        return MonitorState(zeros_of(found, params), states)

    def update(self, updates, state, params=None, **extra):
        return updates, MonitorState(*self._measured(updates, state.measure_states, params, extra))

    def _measured(self, updates: Updates, states: tuple, params: Any, extra: dict) -> tuple[dict, tuple]:
        measurements, after = {}, []
        for (name, measure), before in zip(self.measures.items(), states, strict=True):
            if _remembers(measure):
                found, now = measure.bare_update(updates, before, params, **extra)
            else:
                found, now = measure(updates), before
            measurements[name] = jax.tree.map(jnp.asarray, found)
            after.append(now)
        return measurements, tuple(after)

    def recipe(self) -> Any:
        return Recipe("monitor", (self.measures,))


def _remembers(measure: Any) -> bool:
    return isinstance(measure, GradientTransformation)


def nothing(measure: Callable, params: Any) -> Any:
    """Zeros like what a function will say of the updates."""
    return zeros_of(jax.eval_shape(measure, params), params)


def zeros_of(shapes: Any, params: Any) -> Any:
    """Zeros of these shapes, which may differ where the parameters do."""
    return differing_like(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), params)

"""Every transformation on every kind of mesh: three steps there against three steps on one device, and the bytes.

A slow study: it compiles seven programs for each. The suite holds each transformation to one of them.

Usage: python -m benchmarks.sharded_catalogue [NAME ...]
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.catalogue import CATALOGUE
from benchmarks.collectives import state_bytes
from benchmarks.compilations import compilations
from gradtx import sharding
from tests.steps import FIRST

SHAPES = {"dense": {"kernel": (8, 16), "bias": (16,)}, "scale": ()}
AXIS_TYPES = {"Auto": AxisType.Auto, "Explicit": AxisType.Explicit}
# The mesh, how each parameter lies, and the axis over which the state is divided besides.
LAYOUTS = {
    "fsdp": ({"fsdp": 8}, (P(), P("fsdp", None), P()), None),
    "fsdp x tensor": (
        {"fsdp": 4, "tensor": 2},
        (P("tensor"), P("fsdp", "tensor"), P()),
        None,
    ),
    "zero": ({"data": 8}, (P(), P(), P()), "data"),
    "all three": (
        {"data": 2, "fsdp": 2, "tensor": 2},
        (P("tensor"), P("fsdp", "tensor"), P()),
        "data",
    ),
}


def tree(seed: int) -> Any:
    """Normal numbers in the shapes of the parameters."""
    rng = np.random.default_rng(seed)
    is_shape = lambda x: isinstance(x, tuple)
    return jax.tree.map(lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32), SHAPES, is_leaf=is_shape)


def convex(params: Any) -> Any:
    """A function for methods that read one; second derivatives lie between 1 and 2."""
    return sum(jnp.sum(x**2 / 2 + jnp.logaddexp(x, -x)) for x in jax.tree.leaves(params))


def extra(params: Any, grads: Any) -> dict[str, Any]:
    """What methods may read besides."""
    return {"value_fn": convex, "value": convex(params), "grad": grads}


def on_one_device(tx: Any, steps: int = 3) -> Any:
    """The parameters after some steps."""

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params, **extra(params, grads))
        return gradtx.apply_updates(params, updates), state

    params = tree(0)
    state = tx.init(params)
    for i in range(steps):
        params, state = step(params, state, tree(i + 1))
    return params


def places_of(layout: str, axis_type: AxisType) -> tuple[Any, Any]:
    """Where the parameters lie, and where their moments shall."""
    sizes, specs, axis = LAYOUTS[layout]
    mesh = jax.make_mesh(tuple(sizes.values()), tuple(sizes), (axis_type,) * len(sizes))
    shardings = jax.tree.structure(tree(0)).unflatten([NamedSharding(mesh, spec) for spec in specs])
    return shardings, shardings if axis is None else sharding.zero(tree(0), shardings, axis)


def on_a_mesh(tx: Any, layout: str, axis_type: AxisType, steps: int = 3) -> tuple[Any, Any]:
    """The parameters and the state after some steps; each lies as it lay before, and the step was compiled once."""
    shardings, virtual = places_of(layout, axis_type)
    put = lambda x: jax.device_put(x, shardings)
    params = put(tree(0))
    tx = sharding.on_mesh(tx, virtual)
    places = sharding.state_shardings(tx, params)
    state = sharding.init_sharded(tx, params)
    step = sharding.jit_update(tx, shardings, state)
    for i in range(steps):
        grads = put(tree(i + 1))
        more = {"value_fn": FUNCTION, "value": convex(params), "grad": grads}
        with compilations() as compiled:
            params, state = jax.block_until_ready(step(params, state, grads, **more))  # virtual devices share threads
        assert not (i and compiled), compiled
    lies = lambda x, place: x.sharding.is_equivalent_to(place, x.ndim)
    same = jax.tree.map(lies, (params, state), (shardings, places))
    assert all(jax.tree.leaves(same)), same
    return params, state


FUNCTION = jax.tree_util.Partial(convex)  # one value, so that it is one argument of `jit`


def apart(found: Any, expected: Any) -> float:
    """The largest difference, relative to the largest entry where that is above 1."""
    return max(
        float(jnp.max(jnp.abs(jax.device_get(x) - y)) / max(1.0, float(jnp.max(jnp.abs(y)))))
        for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True)
    )


def main(names: list[str]) -> None:
    for name in names or FIRST:
        tx = CATALOGUE[name].build(gradtx)
        expected = on_one_device(tx)
        whole = state_bytes(jax.jit(tx.init)(tree(0)))
        for layout in LAYOUTS:
            for kind, axis_type in AXIS_TYPES.items():
                try:
                    params, state = on_a_mesh(tx, layout, axis_type)
                    found = f"{apart(params, expected):.1e}  {state_bytes(state)} of {whole} B"
                except Exception as error:
                    found = f"FAILED {type(error).__name__}: {str(error)[:300]}"
                print(f"{name:40} {layout:14} {kind:9} {found}", flush=True)


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    main(sys.argv[1:])

"""ZeRO-1: each device keeps and computes its part of the state of replicated parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.collectives import collectives, filled, mesh_of, model, state_bytes
from benchmarks.compilations import compilations
from gradtx import sharding


def test_the_largest_free_dimension_is_divided():
    mesh = jax.make_mesh((2, 2, 2), ("data", "fsdp", "tensor"), axis_types=(AxisType.Auto,) * 3)
    shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
    params = {
        "w": shape(8, 16),
        "sharded": shape(64, 6),
        "both": shape(16, 8),
        "odd": shape(3, 5),
        "s": shape(),
        "tiny": shape(2),
    }
    put = lambda *spec: NamedSharding(mesh, P(*spec))
    places = {
        "w": put(),
        "sharded": put("fsdp"),
        "both": put("fsdp", "tensor"),
        "odd": put(),
        "s": put(),
        "tiny": put(),
    }
    found = sharding.zero(params, places, "data", min_bytes=9)
    spec = {name: x.spec for name, x in found.items()}
    assert spec == {
        "w": P(None, "data"),
        "sharded": P("fsdp", "data"),
        "both": P(("fsdp", "data"), "tensor"),
        "odd": P(),
        "s": P(),
        "tiny": P(),
    }
    assert sharding.zero(params, places, ("data", "fsdp"))["w"].spec == P(None, ("data", "fsdp"))
    with pytest.raises(ValueError, match="`zero`: axis has"):
        sharding.zero(params, places, "model")
    with pytest.raises(ValueError, match="one device"):
        sharding.zero({"w": jnp.ones(4)}, None, "data")


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("whose", ["on_mesh", "state_shardings"])
def test_an_eighth_of_the_state_and_the_same_parameters(axis_type, whose):
    mesh = mesh_of("replicated", axis_type)
    params = filled(model("replicated", mesh, layers=1))
    shardings = jax.tree.map(lambda x: x.sharding, params)
    virtual = sharding.zero(params, shardings, "data")
    tx = plain = gradtx.adamw(1e-2)
    if whose == "on_mesh":
        tx = sharding.on_mesh(tx, virtual)
        state = sharding.init_sharded(tx, params)
    else:
        state = sharding.init_sharded(tx, params, virtual)
    whole = 2 * state_bytes(params)
    assert state_bytes(state) == whole // 8 + 8
    step = sharding.jit_update(tx, shardings, state)
    grads = filled(model("replicated", mesh, layers=1), 1)
    expected = gradtx.apply_updates(params, plain.update(grads, plain.init(params), params)[0])
    expected = jax.device_get(expected)
    found, state = step(params, state, grads)
    assert state_bytes(state) == whole // 8 + 8
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-8)  # elementwise: the same operations, fused otherwise
    grads = filled(model("replicated", mesh, layers=1), 2)
    with compilations() as compiled:
        found, state = step(found, state, grads)
    assert not compiled
    said = collectives(step.lower(found, state, grads).compile())
    assert set(said) == {"all-gather"}  # of the parameters' parts, and nothing else

"""muon on eight devices: what travels between them, what each computes, and that the steps stay the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

import gradtx
from benchmarks.collectives import LAYOUTS, collectives, lowered, mesh_of, model
from benchmarks.recipes import step_of


def step_on(layout, tx, **options):
    mesh = mesh_of(layout, AxisType.Explicit)
    params = model(layout, mesh, **options)
    with jax.set_mesh(mesh):
        return lowered(step_of(gradtx, tx), params, jax.eval_shape(tx.init, params), params)


# two shapes of matrices: there and back for each, of all matrices the eighth that a device has
ALL = 4 * 4 * (2 * 512**2 + 2 * 512 * 2048)
TRAVEL = {
    "replicated": {"all-gather": (2, ALL)},
    "fsdp": {"all-to-all": (4, 2 * ALL / 8)},
    "fsdp x tensor": {"all-to-all": (4, 2 * ALL / 8)},
}


@pytest.mark.parametrize("layout", TRAVEL)
def test_what_travels_between_devices_and_what_each_computes(layout, capfd):
    steps = lambda n: gradtx.newton_schulz(steps=n, gram=False)
    program, without = (step_on(layout, gradtx.muon(1e-3, orthogonalizer=steps(n))) for n in (5, 0))
    assert collectives(program) == TRAVEL[layout]
    assert "rematerialization" not in capfd.readouterr().err  # XLA's warning that it gathers an array to move it
    every, none = (p.cost_analysis()["flops"] for p in (program, without))
    assert none + 5 * (every - none) < 16.5e9  # the loop's body counts once; 129.7e9 where each device computes all


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("ns_dtype", [None, "bfloat16"])
def test_sharded_steps_are_those_of_one_device(layout, ns_dtype):
    tx = gradtx.muon(0.02, ns_steps=3, ns_dtype=ns_dtype)
    mesh = mesh_of(layout, AxisType.Explicit)
    rng = np.random.default_rng(0)
    full = model(layout, mesh, layers=2)
    params = jax.tree.map(
        lambda x: jax.device_put(rng.normal(size=[n // 16 for n in x.shape]).astype(np.float32), x.sharding), full
    )
    alone = jax.tree.map(lambda x: jnp.asarray(np.asarray(x)), params)
    with jax.set_mesh(mesh):
        found = jax.jit(lambda params: tx.update(params, tx.init(params), params)[0])(params)
    wanted = jax.jit(lambda params: tx.update(params, tx.init(params), params)[0])(alone)
    # products sum in another order, and an iteration makes a rounding up to 3.4 times larger; entries are about 0.02
    atol = 1e-6 if ns_dtype is None else 2e-3
    for x, y, like in zip(*map(jax.tree.leaves, (found, wanted, params)), strict=True):
        assert x.sharding.is_equivalent_to(like.sharding, x.ndim)
        np.testing.assert_allclose(x, y, atol=atol)


@pytest.mark.parametrize("heads", [4, 3])
@pytest.mark.parametrize("method", ["muon", "normuon"])
def test_heads_side_by_side_on_a_mesh(heads, method):
    """4 heads lie whole on the devices of an axis of 4; 3 do not, and are gathered along it."""
    numbers = gradtx.MuonDimensionNumbers(0, 1, parts={1: heads})
    name = "muon_weight_dimension_numbers" if method == "muon" else "weight_dimension_numbers"
    tx = getattr(gradtx, method)(0.02, **{name: numbers})
    mesh = jax.make_mesh((4, 2), ("model", "data"), axis_types=(AxisType.Explicit,) * 2)
    g = np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)
    wanted = tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)), jnp.asarray(g))[0]
    with jax.set_mesh(mesh):
        x = jax.device_put(g, jax.NamedSharding(mesh, jax.P("data", "model")))
        state = jax.jit(tx.init)(x)
        found, after = jax.jit(tx.update)(x, state, x)
    assert found.sharding.is_equivalent_to(x.sharding, 2)
    for before, now in zip(*map(jax.tree.leaves, (state, after)), strict=True):
        assert before.sharding.is_equivalent_to(now.sharding, now.ndim)
    np.testing.assert_allclose(found, wanted, atol=1e-6)

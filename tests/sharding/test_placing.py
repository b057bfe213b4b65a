"""State is made where it lies, a step is compiled once and copies nothing, a checkpoint goes to another mesh."""

import warnings

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.collectives import filled, mesh_of, model, state_bytes
from benchmarks.compilations import compilations
from gradtx import sharding
from gradtx.transforms.scale import scale

AXIS_TYPES = [AxisType.Auto, AxisType.Explicit]
axis_types = pytest.mark.parametrize("axis_type", AXIS_TYPES, ids=["auto", "explicit"])


def on(mesh, seed=0):
    rng = np.random.default_rng(seed)
    put = lambda shape, *spec: jax.device_put(
        jnp.asarray(rng.normal(size=shape), jnp.float32), NamedSharding(mesh, P(*spec))
    )
    return {"w": put((8, 16), "fsdp", None), "b": put((16,)), "s": put(())}


@axis_types
def test_init_makes_no_replica(axis_type):
    params = filled(model("fsdp", mesh_of("fsdp", axis_type), layers=1))
    state = sharding.init_sharded(gradtx.adamw(1e-3), params)
    matrices, vectors = 4 * (2 * 512 * 512 + 2 * 512 * 2048) // 8, 4 * (512 + 2048)
    assert state_bytes(state) == 2 * (matrices + vectors) + 8  # two moments, two counts
    program = jax.jit(gradtx.adamw(1e-3).init, out_shardings=sharding.state_shardings(gradtx.adamw(1e-3), params))
    with jax.set_mesh(mesh_of("fsdp", axis_type)):
        memory = program.lower(params).compile().memory_analysis()
    assert memory.temp_size_in_bytes < matrices  # no whole matrix of 4 MB, nor a moment, in between


@axis_types
@pytest.mark.parametrize("foreign", [False, True], ids=["ours", "optax"])
def test_a_step_is_compiled_once_and_all_its_buffers_are_handed_over(axis_type, foreign):
    mesh = mesh_of("fsdp", axis_type)
    tx = optax.adamw(0.1) if foreign else gradtx.adamw(0.1)
    params, grads = on(mesh), on(mesh, 1)
    state = sharding.init_sharded(tx, params)
    step = sharding.jit_update(tx, params, state)
    program = step.lower(params, state, grads).compile()
    assert program.memory_analysis().alias_size_in_bytes == state_bytes((params, state))
    before = jax.tree.map(lambda x: x.sharding, (params, state))
    plain = jax.jit(lambda p, s, g: (lambda u, s: (gradtx.apply_updates(p, u), s))(*tx.update(g, s, p)))
    expected = jax.device_get(params)
    held = tx.init(expected)
    for i in range(3):
        old = params
        with compilations() as compiled:
            params, state = step(params, state, grads)
        assert len(compiled) <= (i == 0)
        expected, held = plain(expected, held, jax.device_get(grads))
        assert old["w"].is_deleted()
    assert jax.tree.map(lambda x: x.sharding, (params, state)) == before
    chex.assert_trees_all_close(jax.device_get(params), jax.device_get(expected), rtol=1e-6)  # elementwise: fusions


def test_a_step_that_keeps_its_arguments():
    params = on(mesh_of("fsdp"))
    state = sharding.init_sharded(gradtx.sgd(0.1), params)
    sharding.jit_update(gradtx.sgd(0.1), params, state, donate=False)(params, state, params)
    assert not params["w"].is_deleted()


def test_extra_arguments_reach_the_method():
    mesh = mesh_of("fsdp")
    params = on(mesh)
    target = jax.device_put(jnp.ones((8, 16)), NamedSharding(mesh, P("fsdp", None)))
    loss = lambda p: jnp.sum((p["w"] - target) ** 2) + jnp.sum(p["b"] ** 2) + p["s"] ** 2
    tx = sharding.on_mesh(gradtx.lbfgs(), params)  # its line search calls the loss inside of the update

    @jax.jit
    def train(params):
        def body(carry, _):
            params, state = carry
            value, grads = jax.value_and_grad(loss)(params)
            updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=loss)
            return (gradtx.apply_updates(params, updates), state), value

        return jax.lax.scan(body, (params, tx.init(params)), length=8)[0][0]

    found = train(params)
    np.testing.assert_allclose(found["w"], target, atol=1e-3)  # a quadratic: Newton's method ends in two steps
    assert found["w"].sharding.is_equivalent_to(params["w"].sharding, 2)


def test_init_and_update_inside_a_users_own_jit_lie_where_they_should():
    params = on(mesh_of("fsdp"))
    tx = sharding.on_mesh(gradtx.adam(1e-3), params)
    state = jax.jit(tx.init)(params)
    assert state["scale_by_adam"].mu["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
    assert state_bytes(state) == state_bytes(sharding.abstract_state(tx, params))
    eager = tx.init(params)
    assert eager["scale_by_adam"].mu["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
    _, state = jax.jit(tx.update)(params, state, params)
    assert state["scale_by_adam"].mu["w"].sharding.is_equivalent_to(params["w"].sharding, 2)


def test_shardings_alone_tell_enough_also_where_they_are_shorter_than_the_shapes():
    mesh = mesh_of("fsdp")
    params = on(mesh)
    shardings = {"w": NamedSharding(mesh, P("fsdp")), "b": NamedSharding(mesh, P()), "s": NamedSharding(mesh, P())}
    tx = sharding.on_mesh(gradtx.lamb(1e-3), shardings)
    state = jax.jit(tx.init)(params)
    updates, state = jax.jit(tx.update)(params, state, params)
    assert state["scale_by_lamb"].mu["w"].sharding.is_equivalent_to(shardings["w"], 2)
    expected, _ = gradtx.lamb(1e-3).update(params, gradtx.lamb(1e-3).init(params), params)
    chex.assert_trees_all_close(jax.device_get(updates), jax.device_get(expected), rtol=1e-5)  # norms, in another order


@pytest.mark.parametrize("axis_type", AXIS_TYPES, ids=["auto", "explicit"])
def test_what_is_no_floating_parameter_is_passed_over(axis_type):
    mesh = mesh_of("fsdp", axis_type)
    put = lambda x: jax.device_put(x, NamedSharding(mesh, P()))
    others = {"absent": None, "key": put(jax.random.key(0)), "number": put(jnp.arange(8))}
    params, tx = others | on(mesh), gradtx.adam(1e-3)
    for known in (params, sharding.on_mesh(tx, params).layout.shardings()):
        state = sharding.init_sharded(sharding.on_mesh(tx, known), params)
        assert state["scale_by_adam"].mu["w"].sharding.is_equivalent_to(params["w"].sharding, 2)
        assert state["scale_by_adam"].mu["key"] is None
    grads = dict.fromkeys(others) | on(mesh, 1)
    expected, _ = tx.update(jax.device_get(on(mesh, 1)), tx.init(jax.device_get(on(mesh))))
    with jax.set_mesh(mesh):
        found, _ = jax.jit(sharding.on_mesh(tx, params).update)(grads, state, params)
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=1e-6)  # elementwise: fusions


def test_a_foreign_update_that_explicit_axes_forbid():
    mesh = mesh_of("fsdp", AxisType.Explicit)
    whiten = optax.GradientTransformation(
        lambda p: (), lambda g, s, p=None: (jax.tree.map(lambda x: x @ x.T @ x if x.ndim == 2 else x, g), s)
    )
    params = on(mesh)
    with jax.set_mesh(mesh):
        found, _ = jax.jit(gradtx.chain(whiten, scale(1.0)).update)(params, {"count": jnp.zeros((), jnp.int32)})
    w = np.asarray(params["w"], np.float64)
    np.testing.assert_allclose(found["w"], w @ w.T @ w, rtol=1e-4, atol=1e-4)  # float32 sums of 128 products
    assert found["w"].sharding.spec == params["w"].sharding.spec


@pytest.mark.parametrize("version", ["StandardCheckpointer", "v1"])
def test_a_checkpoint_goes_to_another_mesh(tmp_path, version):
    params, tx = on(mesh_of("fsdp")), gradtx.adafactor(1e-2, min_dim_size_to_factor=8)
    state = sharding.init_sharded(tx, params)
    params, state = sharding.jit_update(tx, params, state)(params, state, on(mesh_of("fsdp"), 1))
    other = on(mesh_of("fsdp x tensor"))
    describe = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)
    abstract = {"params": jax.tree.map(describe, other), "state": sharding.abstract_state(tx, other)}
    saved = {"params": params, "state": state}
    if version == "v1":
        v1 = pytest.importorskip("orbax.checkpoint.experimental.v1")
        v1.save(tmp_path / "saved", saved)
        found = v1.load(tmp_path / "saved", abstract)
    else:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(tmp_path / "saved", saved)
            checkpointer.wait_until_finished()
            found = checkpointer.restore(tmp_path / "saved", abstract)
    chex.assert_trees_all_equal(jax.device_get(found), jax.device_get(saved))
    assert jax.tree.map(lambda x: x.sharding, found) == jax.tree.map(lambda x: x.sharding, abstract)


@pytest.mark.parametrize("place", ["a mesh", "a device"])
@pytest.mark.parametrize("wrap", [lambda tx: tx, lambda tx: gradtx.compress_state(tx, min_size=0)], ids=["", "int8"])
def test_state_in_the_hosts_memory_is_updated_there(wrap, place):
    tx = wrap(gradtx.adam(0.1))
    params = on(mesh_of("fsdp"))
    params = params if place == "a mesh" else jax.device_put(params, jax.devices()[0])
    memories = lambda state: {x.sharding.memory_kind for x in jax.tree.leaves(state) if x.ndim}
    state = sharding.init_sharded(tx, params, memory_kind="pinned_host")
    assert memories(state) == {"pinned_host"}
    near = sharding.jit_update(tx, params, sharding.init_sharded(tx, params), donate=False)
    expected, _ = near(params, sharding.init_sharded(tx, params), params)
    step = sharding.jit_update(tx, params, state, donate=False)
    found, state = step(params, state, params)
    chex.assert_trees_all_equal(found, expected)
    assert memories(state) == {"pinned_host"}


def test_errors():
    params = on(mesh_of("fsdp"))
    with pytest.raises(TypeError, match="`on_mesh`: tx must be a gradient transformation"):
        sharding.on_mesh(gradtx.adam, params)
    tx = sharding.on_mesh(gradtx.adam(1e-3), {"w": params["w"]})
    with pytest.raises(ValueError, match="has none for 'b'"):
        jax.jit(tx.init)(params)


def test_no_warning_of_unused_buffers():
    params = on(mesh_of("fsdp"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tx = gradtx.muon(1e-3)
        state = sharding.init_sharded(tx, params)
        sharding.jit_update(tx, params, state)(params, state, on(mesh_of("fsdp"), 1))

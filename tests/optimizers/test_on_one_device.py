"""On one device some methods take fewer passes over memory; the numbers stay the same, and so do the collectives."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import gradtx
from benchmarks.collectives import collectives, lowered, mesh_of, model
from benchmarks.recipes import step_of

METHODS = {
    "clip+adamw": lambda: gradtx.chain(gradtx.clip_by_global_norm(0.1), gradtx.adamw(0.01)),
    "lamb": lambda: gradtx.lamb(0.01, weight_decay=0.1, mask="kernel"),
    "lars": lambda: gradtx.lars(0.01, weight_decay=0.1, trust_ratio_mask="kernel"),
    "adafactor": lambda: gradtx.adafactor(0.01, min_dim_size_to_factor=4, clipping_threshold=0.5),
}


@pytest.mark.parametrize("method", METHODS)
def test_ten_steps_agree_with_those_on_many_devices(method, monkeypatch):
    rng = np.random.default_rng(0)
    layer = lambda: {"kernel": jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), "bias": jnp.ones(5)}
    params = [layer() for _ in range(3)] + [{"kernel": jnp.ones((2, 4, 6)), "bias": jnp.ones(())}]
    tx = METHODS[method]()

    def run():
        def step(carry, t):
            p, state = carry
            grads = jax.tree.map(lambda p: jnp.sin(3 * p + t), p)
            updates, state = tx.update(grads, state, p)
            return (gradtx.apply_updates(p, updates), state), None

        return jax.jit(lambda: jax.lax.scan(step, (params, tx.init(params)), jnp.arange(10.0))[0])()

    many = run()
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    # sums in another order: a few roundings of float32 a step, ten steps
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, run())


@pytest.mark.parametrize("spec", [("x", None), (None, "x")], ids=str)
@pytest.mark.parametrize("method", ["clip+adamw", "lamb", "lars"])
def test_sharded_leaves_take_one_all_reduce_and_nothing_else(method, spec):
    mesh = jax.make_mesh((8,), ("x",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    tx = METHODS[method]()
    shape = lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding if x.ndim == 2 else None)
    params = {f"kernel{i}": shape(jax.ShapeDtypeStruct((64, 64), jnp.float32)) for i in range(6)}
    state = jax.tree.map(shape, jax.eval_shape(tx.init, params))
    compiled = jax.jit(tx.update).lower(params, state, params).compile().as_text()
    found = re.findall(r" (all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter)\(", compiled)
    assert found == ["all-reduce"]


# what a step sends where types tell the sharding: all norms together on any mesh; Adafactor's means of rows and of
# columns along one mesh axis each, then the means of those, then the norms that clip
ALL_REDUCES = {
    "clip+adamw": {"fsdp": 1, "fsdp x tensor": 1},
    "lamb": {"fsdp": 1, "fsdp x tensor": 1},
    "lars": {"fsdp": 1, "fsdp x tensor": 1},
    "adafactor": {"fsdp": 2, "fsdp x tensor": 4},
}


@pytest.mark.parametrize("layout", ["fsdp", "fsdp x tensor"])
@pytest.mark.parametrize("method", METHODS)
def test_where_types_tell_the_sharding_a_step_sends_few_sums(method, layout):
    tx, mesh = METHODS[method](), mesh_of(layout, AxisType.Explicit)
    params = model(layout, mesh, layers=2)
    with jax.set_mesh(mesh):
        if method in ("lamb", "lars"):  # their masks there are of a leaf "kernel"
            tx = {"lamb": gradtx.lamb, "lars": gradtx.lars}[method](0.01, weight_decay=0.1)
        compiled = lowered(step_of(gradtx, tx), params, jax.eval_shape(tx.init, params), params)
    found = {kind: n.operations for kind, n in collectives(compiled).items()}
    assert found == {"all-reduce": ALL_REDUCES[method][layout]}

"""Fully sharded training by hand: a step of which each device holds a part is the step of the whole."""

from functools import partial

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.collectives import collectives

MESH = jax.make_mesh((8,), ("fsdp",), (AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("fsdp", "tensor"), (AxisType.Auto,) * 2)
SPECS = {"matrix": P("fsdp"), "other": P(None, "fsdp"), "vector": P(), "scale": P()}
GRID_SPECS = {"matrix": P("fsdp", "tensor"), "other": P("tensor"), "vector": P("fsdp"), "scale": P()}
STEPS = 3


def tree(seed, *lead):
    rng = np.random.default_rng(seed)
    shapes = {"matrix": (16, 6), "other": (4, 8), "vector": (8,), "scale": ()}
    return {name: jnp.asarray(rng.normal(size=(*lead, *shape)), jnp.float32) for name, shape in shapes.items()}


PARAMS, GRADS = tree(0), tree(1, STEPS)

BUILDERS = {
    "clip_by_global_norm": lambda axis: gradtx.clip_by_global_norm(0.5, axis=axis),
    "clip_by_block_rms": lambda axis: gradtx.clip_by_block_rms(0.5, axis=axis),
    "scale_by_trust_ratio": lambda axis: gradtx.scale_by_trust_ratio(axis=axis),
    "scale_by_param_block_norm": lambda axis: gradtx.scale_by_param_block_norm(axis=axis),
    "scale_by_param_block_rms": lambda axis: gradtx.scale_by_param_block_rms(axis=axis),
    "scale_by_param_block_rms clipped": lambda axis: gradtx.scale_by_param_block_rms(clipping_threshold=0.5, axis=axis),
    "normalize_by_update_norm": lambda axis: gradtx.normalize_by_update_norm(axis=axis),
    "normalize": lambda axis: gradtx.contrib.normalize(axis=axis),
    "lamb": lambda axis: gradtx.lamb(0.1, weight_decay=0.1, axis=axis),
    "lars": lambda axis: gradtx.lars(0.1, weight_decay=0.1, axis=axis),
    "fromage": lambda axis: gradtx.fromage(0.1, axis=axis),
    "polyak_sgd": lambda axis: gradtx.polyak_sgd(axis=axis),
    "mars": lambda axis: gradtx.mars(0.1, axis=axis),
    "stable_adamw": lambda axis: gradtx.stable_adamw(0.1, threshold=0.5, axis=axis),
    "tiger": lambda axis: gradtx.tiger(0.1, axis=axis),
    "cautious": lambda axis: gradtx.cautious(gradtx.scale_by_adam(), axis=axis),
    "normalize_adaptive": lambda axis: gradtx.normalize_adaptive(axis=axis),
}
BOUNDED = partial(gradtx.skip_large_updates, max_squared_norm=125.0)  # which the last of the three steps exceeds
WATCHED = {
    "apply_if_finite": lambda axis: gradtx.apply_if_finite(gradtx.lamb(0.1, axis=axis), axis=axis),
    "MultiSteps": lambda axis: gradtx.MultiSteps(gradtx.adam(0.1), 1, should_skip_update_fn=BOUNDED, axis=axis),
    "MultiSteps finite": lambda axis: gradtx.MultiSteps(
        gradtx.adam(0.1), 2, should_skip_update_fn=gradtx.skip_not_finite, axis=axis
    ),
    "orthogonal_gradients": lambda axis: gradtx.orthogonal_gradients(axis=axis),
}


def trained(tx, params, grads):
    def body(carry, g):
        updates, state = tx.update(g, carry[1], carry[0], value=0.5)
        return (gradtx.apply_updates(carry[0], updates), state), None

    return jax.lax.scan(body, (params, tx.init(params)), grads)[0]


def by_hand(tx, grads=GRADS, specs=SPECS, mesh=MESH):
    """The parameters after the steps, of which each device has made its part."""
    of_steps = jax.tree.map(lambda spec: P(None, *spec), specs)
    mapped = partial(jax.shard_map, mesh=mesh, in_specs=(specs, of_steps), out_specs=specs)
    return jax.jit(mapped(lambda params, grads: trained(tx, params, grads)[0]))(PARAMS, grads)


def poisoned(step, name, index):
    """The gradients with one NaN, which lies on one device."""
    return GRADS | {name: GRADS[name].at[(step, *index)].set(jnp.nan)}


def close(found, wanted):
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)  # float32, sums in another order


@pytest.mark.parametrize("name", [*BUILDERS, *WATCHED])
def test_parts_train_as_the_whole(name):
    build = (BUILDERS | WATCHED)[name]
    alone = jax.jit(lambda: trained(build(None), PARAMS, GRADS)[0])()
    close(by_hand(build("fsdp")), alone)


@pytest.mark.parametrize("name", ["clip_by_global_norm", "lamb", "scale_by_param_block_rms clipped"])
def test_parts_along_two_axes_train_as_the_whole(name):
    build = BUILDERS[name]
    alone = jax.jit(lambda: trained(build(None), PARAMS, GRADS)[0])()
    close(by_hand(build(("fsdp", "tensor")), GRADS, GRID_SPECS, GRID), alone)


@pytest.mark.parametrize("name", ["clip_by_global_norm", "lamb"])
def test_without_the_axis_a_part_is_all(name):
    """What the argument is for: each device's own norms are others."""
    alone = jax.jit(lambda: trained(BUILDERS[name](None), PARAMS, GRADS)[0])()
    unchecked = partial(jax.shard_map, mesh=MESH, out_specs=SPECS, check_vma=False)  # each has a scale of its own
    in_specs = SPECS, jax.tree.map(lambda spec: P(None, *spec), SPECS)
    own = jax.jit(unchecked(lambda p, g: trained(BUILDERS[name](None), p, g)[0], in_specs=in_specs))(PARAMS, GRADS)
    assert np.max(np.abs(own["matrix"] - alone["matrix"])) > 1e-2


def test_units_that_lie_on_several_devices():
    tx = lambda axis: gradtx.adaptive_grad_clip(0.1, mesh_axis=axis)
    params, grads = ({"matrix": x["matrix"], "scale": x["scale"]} for x in (PARAMS, GRADS))
    specs = {"matrix": P("fsdp"), "scale": P()}
    in_specs = specs, jax.tree.map(lambda spec: P(None, *spec), specs)
    step = partial(jax.shard_map, mesh=MESH, in_specs=in_specs, out_specs=specs)
    found = jax.jit(step(lambda p, g: trained(tx("fsdp"), p, g)[0]))(params, grads)
    close(found, jax.jit(lambda: trained(tx(None), params, grads)[0])())


@pytest.mark.parametrize("name", ["apply_if_finite", "MultiSteps finite", "MultiSteps"])
@pytest.mark.parametrize("at", [("matrix", (9, 2)), ("scale", ())])
def test_a_nan_on_one_device_stops_all(name, at):
    grads, build = poisoned(1, *at), WATCHED[name]
    alone = jax.jit(lambda: trained(build(None), PARAMS, grads)[0])()
    chex.assert_tree_all_finite(alone)
    close(by_hand(build("fsdp"), grads), alone)


def test_a_nan_on_one_device_clears_its_leaf_on_all():
    grads, build = poisoned(0, "matrix", (9, 2)), BUILDERS["clip_by_global_norm"]
    alone = jax.jit(lambda: trained(build(None), PARAMS, grads)[0])()
    close(by_hand(build("fsdp"), grads), alone)


def test_what_a_monitor_sees_is_of_the_whole():
    build = lambda axis: gradtx.monitor(
        gradtx.chain(gradtx.clip_by_global_norm(0.5, axis=axis), gradtx.clip(0.01), gradtx.sgd(0.1)), axis=axis
    )
    seen = lambda tx, *args: gradtx.metrics(trained(tx, *args)[1])
    alone = jax.jit(lambda: seen(build(None), PARAMS, GRADS))()
    in_specs = SPECS, jax.tree.map(lambda spec: P(None, *spec), SPECS)
    mapped = jax.shard_map(partial(seen, build("fsdp")), mesh=MESH, in_specs=in_specs, out_specs=P())
    close(jax.jit(mapped)(PARAMS, GRADS), alone)


@pytest.mark.parametrize("name", BUILDERS)
def test_each_link_takes_one_collective(name):
    tx = BUILDERS[name]("fsdp")

    def step(params, grads):
        return tx.update(grads, tx.init(params), params, value=0.5)[0]

    grads = jax.tree.map(lambda g: g[0], GRADS)
    compiled = jax.jit(jax.shard_map(step, mesh=MESH, in_specs=(SPECS, SPECS), out_specs=SPECS)).lower(PARAMS, grads)
    assert {kind: x.operations for kind, x in collectives(compiled.compile()).items()} == {"all-reduce": 1}


def test_lamb_along_two_axes_takes_one_collective():
    tx = gradtx.lamb(0.1, axis=("fsdp", "tensor"))
    step = lambda params, grads: tx.update(grads, tx.init(params), params)[0]
    mapped = jax.shard_map(step, mesh=GRID, in_specs=(GRID_SPECS, GRID_SPECS), out_specs=GRID_SPECS)
    compiled = jax.jit(mapped).lower(PARAMS, jax.tree.map(lambda g: g[0], GRADS)).compile()
    assert {kind: x.operations for kind, x in collectives(compiled).items()} == {"all-reduce": 1}


@pytest.mark.parametrize("name", ["clip_by_global_norm", "lamb", "clip_by_block_rms"])
def test_under_pmap_every_leaf_is_a_part(name):
    tx, whole = BUILDERS[name]("fsdp"), BUILDERS[name](None)
    params, grads = {"matrix": PARAMS["matrix"]}, {"matrix": GRADS["matrix"][0]}
    update = lambda tx, p, g: tx.update(g, tx.init(p), p)[0]["matrix"]
    split = lambda x: {"matrix": x["matrix"].reshape(8, 2, 6)}
    found = jax.pmap(partial(update, tx), axis_name="fsdp")(split(params), split(grads))
    close(found.reshape(16, 6), update(whole, params, grads))


@pytest.mark.parametrize("build", BUILDERS.values(), ids=BUILDERS)
def test_an_axis_that_is_not_there_is_an_error_that_says_so(build):
    tx = build("data")
    with pytest.raises(ValueError, match=r'`\w+`: the axis "data" is bound by no `jax.shard_map`'):
        tx.update(PARAMS, tx.init(PARAMS), PARAMS, value=0.5)


@pytest.mark.parametrize("axis", [0, (), ("fsdp", "fsdp"), ("fsdp", 1)])
def test_an_axis_is_a_name_or_several(axis):
    with pytest.raises(TypeError, match="`clip_by_global_norm`: axis must be the name of a manual axis"):
        gradtx.clip_by_global_norm(1.0, axis=axis)


def test_an_axis_is_shown_and_told_apart():
    tx = gradtx.clip_by_global_norm(1.0, axis=("fsdp", "tensor"))
    assert repr(tx) == "clip_by_global_norm(max_norm=1.0, axis=('fsdp', 'tensor'))"
    assert tx == eval(repr(tx), {"clip_by_global_norm": gradtx.clip_by_global_norm}) != gradtx.clip_by_global_norm(1.0)

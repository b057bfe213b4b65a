"""Where a state lies: for ours, for Optax's, and for what others make of shapes."""

import math

import jax
import jax.numpy as jnp
import optax
import pytest
from jax.sharding import NamedSharding, SingleDeviceSharding
from jax.sharding import PartitionSpec as P

import gradtx
from benchmarks.collectives import LAYOUTS, mesh_of, model, state_bytes
from gradtx import sharding

MESH = mesh_of("fsdp x tensor")
put = lambda *spec: NamedSharding(MESH, P(*spec))
shape = lambda *dims: jax.ShapeDtypeStruct(dims, jnp.float32)
PARAMS = {"square": shape(8, 8), "tall": shape(512, 128), "bias": shape(128), "scale": shape()}
PLACES = {"square": put("fsdp", "tensor"), "tall": put("tensor", "fsdp"), "bias": put("tensor"), "scale": put()}


def specs(tx, params=PARAMS, places=PLACES):
    found = sharding.state_shardings(tx, params, places)
    assert jax.tree.structure(found) == jax.tree.structure(jax.eval_shape(tx.init, params))
    return jax.tree.map(lambda x: P(*[a for a in x.spec]), found)


def test_moments_lie_as_their_parameters_and_counts_everywhere():
    found = specs(gradtx.adamw(1e-3))["scale_by_adam"]
    assert found.count == P() and found.mu == found.nu == jax.tree.map(lambda x: x.spec, PLACES)


def test_means_of_rows_and_columns_follow_rows_and_columns():
    found = specs(gradtx.adafactor(1e-3, min_dim_size_to_factor=8))["scale_by_factored_rms"]
    assert found.v_row == {"square": P("fsdp"), "tall": P("fsdp"), "bias": None, "scale": None}
    assert found.v_col == {"square": P("tensor"), "tall": P("tensor"), "bias": None, "scale": None}
    assert found.v["bias"] == P("tensor")


def test_a_stack_lies_as_each_of_its_members():
    found = specs(gradtx.scale_by_lbfgs(memory_size=3))
    assert found.diff_params_memory["tall"] == P(None, "tensor", "fsdp")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor", "muon", "lion"])
def test_the_bytes_on_a_device_are_those_that_can_be_computed(name, layout):
    mesh = mesh_of(layout)
    params = model(layout, mesh)
    parts = lambda spec: math.prod(mesh.shape[a] for a in spec if a)
    local = lambda x: 4 * x.size // parts(x.sharding.spec)
    means = lambda x: sum(4 * n // parts([a]) for n, a in zip(x.shape, [*x.sharding.spec, None, None], strict=False))
    leaves = jax.tree.leaves(params)
    counts = {"adamw": 2, "lamb": 2, "adafactor": 2, "muon": 4, "lion": 2}[name]  # a chain's, and its member's own
    expected = {
        "adamw": sum(2 * local(x) for x in leaves),
        "lamb": sum(2 * local(x) for x in leaves),
        "lion": sum(local(x) for x in leaves),
        "muon": sum(local(x) * (1 if x.ndim == 2 else 2) for x in leaves),
        "adafactor": sum(means(x) if x.ndim == 2 else local(x) for x in leaves),
    }[name]
    assert state_bytes(sharding.abstract_state(getattr(gradtx, name)(1e-3), params)) == expected + 4 * counts


@pytest.mark.parametrize(
    "tx",
    [
        optax.adamw(1e-3),
        optax.MultiSteps(optax.adamw(1e-3), 2),
        gradtx.chain(gradtx.clip_by_global_norm(1.0), optax.scale_by_adam()),
    ],
    ids=["adamw", "MultiSteps", "in a chain"],
)
def test_moments_of_optax_lie_as_their_parameters(tx):
    found = jax.tree_util.tree_flatten_with_path(sharding.state_shardings(tx, PARAMS, PLACES))[0]
    moments = [(path, x) for path, x in found if getattr(path[-1], "key", None) in PARAMS]
    assert len(moments) >= 2 * len(PARAMS)
    assert all(x.spec == PLACES[path[-1].key].spec for path, x in moments)


def test_factored_moments_of_optax():
    found = specs(optax.adafactor(1e-3, min_dim_size_to_factor=8))[0]
    assert (found.v_row["tall"], found.v_col["tall"]) == (P("fsdp"), P("tensor"))


def foreign(slot):
    """A foreign transformation whose slots are made of the parameters' shapes alone."""
    make = lambda params: [slot(p.shape) for p in jax.tree.leaves(params)]  # in a list: no path tells whose they are
    return optax.GradientTransformation(lambda params: {"slots": make(params)}, lambda g, s, p=None: (g, s))


@pytest.mark.parametrize(
    ("slot", "square", "tall"),
    [
        (lambda s: jnp.zeros(s), P("fsdp", "tensor"), P("tensor", "fsdp")),
        (lambda s: jnp.zeros(s, jnp.int8), P("fsdp", "tensor"), P("tensor", "fsdp")),
        (lambda s: jnp.zeros((-(-math.prod(s) // 256), 256)), P(), P(("tensor", "fsdp"))),
        (lambda s: jnp.zeros((*s[:-1], -(-s[-1] // 4)) if s else ()), P("fsdp", "tensor"), P("tensor", "fsdp")),
        (lambda s: jnp.zeros((10, *s)), P(None, "fsdp", "tensor"), P(None, "tensor", "fsdp")),
        (lambda s: jnp.zeros((math.prod(s),)), P(("fsdp", "tensor")), P(("tensor", "fsdp"))),
        (lambda s: jnp.zeros((s[0], s[0]) if s else ()), P("fsdp"), P("tensor")),
        (lambda s: jnp.zeros((7,)), P(), P()),
    ],
    ids=["constants", "codes", "flat blocks", "scales", "a stack", "flat", "a statistic", "none of a parameter's"],
)
def test_slots_made_of_shapes_follow_what_they_change_with(slot, square, tall):
    _, scale, *matrices = specs(foreign(slot))["slots"]
    assert matrices == [square, tall]
    assert not any(scale)  # written as its parameter was, or as P()


def test_what_is_made_of_several_parameters_is_replicated():
    every = lambda params: jnp.zeros(sum(p.size for p in jax.tree.leaves(params)))
    assert specs(optax.GradientTransformation(every, lambda g, s, p=None: (g, s))) == P()
    flat = specs(gradtx.flatten(gradtx.scale_by_adam()))
    assert all(not any(spec) for spec in jax.tree.leaves(flat))


def test_shardings_of_the_parameters_themselves_and_prefixes_and_specs():
    shapes = jax.tree.map(lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), PARAMS, PLACES)
    expected = specs(gradtx.adam(1e-3))
    own = jax.tree.map(lambda x: P(*x.spec), sharding.state_shardings(gradtx.adam(1e-3), shapes))
    with jax.set_mesh(MESH):
        by_spec = specs(gradtx.adam(1e-3), PARAMS, jax.tree.map(lambda x: x.spec, PLACES))
    assert own == by_spec == expected
    replicated = specs(gradtx.adam(1e-3), PARAMS, put())
    assert all(not any(spec) for spec in jax.tree.leaves(replicated))


def test_on_one_device_all_lies_there():
    params = jax.device_put({"w": jnp.ones(4)}, jax.devices()[3])
    found = jax.tree.leaves(sharding.state_shardings(gradtx.adam(1e-3), params))
    assert found and all(x == SingleDeviceSharding(jax.devices()[3]) for x in found)


def test_a_memory_is_for_what_is_no_scalar():
    found = sharding.state_shardings(gradtx.adam(1e-3), PARAMS, PLACES, memory_kind="pinned_host")["scale_by_adam"]
    assert found.mu["tall"].memory_kind == "pinned_host" and found.count.memory_kind != "pinned_host"


@pytest.mark.parametrize(
    ("params", "places", "message"),
    [
        (PARAMS, None, "give `param_shardings`"),
        (PARAMS, PLACES | {"bias": P("tensor")}, None),
        (PARAMS, PLACES | {"scale": NamedSharding(mesh_of("fsdp"), P())}, "2 meshes"),
        (PARAMS, PLACES | {"bias": put("fsdp", "tensor")}, "bias has 1 dimensions"),
        (PARAMS | {"bias": shape(6)}, PLACES | {"bias": put("fsdp")}, "bias has a dimension of 6"),
        (PARAMS, {"square": put()}, "another structure"),
        (PARAMS, jax.tree.map(lambda x: x.spec, PLACES), "needs a mesh"),
    ],
)
def test_errors_name_the_leaf(params, places, message):
    if message is None:  # one specification among shardings is on their mesh
        assert sharding.state_shardings(gradtx.adam(1e-3), params, places)
        return
    with pytest.raises(ValueError, match=message):
        sharding.state_shardings(gradtx.adam(1e-3), params, places)
    with pytest.raises(TypeError, match="must be a gradient transformation"):
        sharding.state_shardings(gradtx.adam, PARAMS, PLACES)

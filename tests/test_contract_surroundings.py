"""The rules hold whatever surrounds a step: manual axes, committed arrays, odd gradients, names and containers."""

from typing import NamedTuple

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec, SingleDeviceSharding

import gradtx
from benchmarks.catalogue import CATALOGUE
from benchmarks.compilations import compilations

from .steps import FIRST, avals, step, tree_of, walk

ONE = jax.make_mesh((1,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[1:2])
TWO = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])


@pytest.fixture(autouse=True)
def strict_everywhere(strict):
    """As `test_contract`."""


@pytest.fixture(params=FIRST, scope="module")
def tx(request):
    return CATALOGUE[request.param].build(gradtx)


@pytest.fixture(params=FIRST, scope="module")
def unmasked(request):
    """For trees with other paths than those of the masks."""
    if "masked" not in request.param:
        return CATALOGUE[request.param].build(gradtx)
    return gradtx.monitor(gradtx.masked(gradtx.adamw(0.1, mask=True), True))


def trained(tx, params, grads, steps=2):
    """Parameters and state after some steps, all of them in one scan."""

    def body(carry, _):
        return step(tx, *carry, grads), None

    return jax.lax.scan(body, (params, tx.init(params)), length=steps)[0]


def test_each_device_of_a_manual_axis_trains_its_own(tx):
    """Types alone: JAX checks along which axes every value varies while it traces."""

    def per_device(params, grads):
        alone = lambda x: jax.tree.map(lambda x: x[0], x)
        return jax.tree.map(lambda x: x[None], trained(tx, alone(params), alone(grads)))

    split = PartitionSpec("data")
    mapped = jax.shard_map(per_device, mesh=TWO, in_specs=split, out_specs=split)
    jax.eval_shape(mapped, *[tree_of("float32", seed, lead=(2,)) for seed in (0, 1)])


@pytest.mark.parametrize("name", ["adafactor all", "apply_if_finite", "monitor masked", "lamb", "newton cg"])
def test_a_device_of_a_manual_axis_computes_what_it_would_alone(name):
    tx, trees = CATALOGUE[name].build(gradtx), [tree_of("float32", seed, lead=(2,)) for seed in (0, 1)]
    at = lambda i, x: jax.tree.map(lambda x: x[i], x)

    def per_device(params, grads):
        return jax.tree.map(lambda x: x[None], trained(tx, at(0, params), at(0, grads)))

    split = PartitionSpec("data")
    together = jax.jit(jax.shard_map(per_device, mesh=TWO, in_specs=split, out_specs=split))(*trees)
    for i in range(2):
        params, grads = (at(i, x) for x in trees)
        alone = walk(tx, params, tx.init(params), [grads] * 2)
        chex.assert_trees_all_close(at(i, together), alone, rtol=1e-5, atol=1e-6)  # another program: other roundings


@pytest.mark.parametrize(
    "place",
    [
        SingleDeviceSharding(jax.devices()[1]),
        NamedSharding(ONE, PartitionSpec()),
        NamedSharding(TWO, PartitionSpec()),
        NamedSharding(TWO, PartitionSpec(), memory_kind="pinned_host"),
    ],
    ids=["a device", "a mesh of one", "a mesh", "the host"],
)
def test_state_is_made_where_the_parameters_were_put(tx, place):
    params = jax.device_put(tree_of("float32"), place)
    for x in jax.tree.leaves(tx.init(params)):
        assert x.committed and x.sharding.is_equivalent_to(place, x.ndim)
        assert x.sharding.memory_kind == jax.tree.leaves(params)[0].sharding.memory_kind


@pytest.mark.parametrize(
    "place", [jax.devices()[1], NamedSharding(ONE, PartitionSpec())], ids=["a device", "mesh of 1"]
)
@pytest.mark.parametrize("name", ["adamw", "adafactor", "monitor", "apply_if_finite"])
def test_the_second_step_on_one_device_compiles_nothing(name, place):
    tx = CATALOGUE[name].build(gradtx)
    params, grads = jax.device_put((tree_of("float32"), tree_of("float32", 1)), place)
    state, compiled = tx.init(params), jax.jit(lambda *args: step(tx, *args))
    params, state = compiled(params, state, grads)
    with compilations() as anew:
        compiled(params, state, grads)
    assert not anew


def test_integers_are_gradients_of_floating_parameters(tx, op_by_op):
    params = tree_of("float32")
    kinds = {"dense": {"kernel": np.int64, "bias": jnp.int8}, "scale": bool}
    grads = jax.tree.map(lambda p, kind: np.sign(p).astype(kind), params, kinds)
    as_floats = jax.tree.map(lambda g: jnp.asarray(g, jnp.float32), grads)
    given, wanted = (step(tx, params, tx.init(params), g) for g in (grads, as_floats))
    chex.assert_trees_all_equal(given, wanted)


class Heads(eqx.Module):
    policy: jax.Array
    value: jax.Array


class Point(NamedTuple):
    value: jax.Array


@jax.tree_util.register_pytree_with_keys_class
class Dense:
    """A container whose constructor takes matrices alone."""

    def __init__(self, w):
        if hasattr(w, "dtype") and (w.ndim != 2 or not jnp.issubdtype(w.dtype, jnp.floating)):
            raise ValueError("w must be a matrix")
        self.w = w

    def tree_flatten_with_keys(self):
        return [(jax.tree_util.GetAttrKey("w"), self.w)], None

    @classmethod
    def tree_unflatten(cls, _, children):
        return cls(*children)


def test_names_do_not_matter_and_containers_may_take_nothing_but_their_arrays(unmasked, op_by_op):
    kernel, bias = tree_of("float32")["dense"].values()
    odd = {
        "slashes": {"net": {"a/b": kernel}, "net/a": {"b": bias}, "": {"/": kernel}},
        "fields called value": {"value": Heads(kernel, bias), "other": [Point(bias), {"value": {"value": kernel}}]},
        "strict": [Dense(kernel), bias],
    }
    names = gradtx.paths.names(odd)
    assert len(set(names)) == len(names)
    plain, outcomes = jax.tree.leaves(odd), []
    for params in (odd, plain):
        state = unmasked.init(params)
        first = step(unmasked, params, state, params)
        second = step(unmasked, *first, first[0])
        assert jax.tree.structure(second[0]) == jax.tree.structure(params)
        assert [avals(x) for x in jax.tree.leaves(second[1])] == [avals(x) for x in jax.tree.leaves(state)]
        outcomes.append((first, second))
    slots = [sorted(x.shape for x in jax.tree.leaves(second[1])) for _, second in outcomes]
    assert slots[0] == slots[1]
    for of_odd, of_plain in zip(*outcomes, strict=True):
        chex.assert_trees_all_equal(jax.tree.leaves(of_odd[0]), jax.tree.leaves(of_plain[0]))


def test_zero_gradients_stay_finite_and_make_no_nan_on_the_way(tx, op_by_op):
    """In float16, where small numbers are 0; at parameters that are zero, too."""
    params = tree_of("float16")
    params["dense"]["bias"] = jnp.zeros(6, "float16")
    with jax.debug_nans("zoom" not in repr(tx)):  # which leaves out a NaN that it makes in its loop
        p, state = params, tx.init(params)
        for scale in (0, 1):
            p, state = step(tx, p, state, jax.tree.map(lambda x: scale * x, params))
            chex.assert_tree_all_finite((p, state))

"""Means and norms along a manual axis, in the three settings in which a step may run."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from gradtx import parallel

MESH = jax.make_mesh((8,), ("data",), (AxisType.Auto,))
GRID = jax.make_mesh((4, 2), ("data", "model"), (AxisType.Auto,) * 2)


def by_pmap(f, *stacks):
    """`f` of each device's rows; the result of the first device."""
    return jax.tree.map(lambda x: x[0], jax.pmap(f, axis_name="data")(*stacks))


def by_shard_map(check_vma):
    def run(f, *stacks):
        alone = lambda *stacks: f(*jax.tree.map(lambda x: x[0], stacks))
        return jax.jit(jax.shard_map(alone, mesh=MESH, in_specs=P("data"), out_specs=P(), check_vma=check_vma))(*stacks)

    return run


SETTINGS = {"checked": by_shard_map(True), "unchecked": by_shard_map(False), "pmap": by_pmap}
each_setting = pytest.mark.parametrize("setting", SETTINGS)
X = jnp.arange(8.0) + 1  # the gradients of the eight devices: their mean is 4.5
W = {"w": jnp.float32(2.0)}


def gradient(params, x):
    return jax.grad(lambda p: p["w"] * x)(params)


@each_setting
def test_pmean_of_gradients_is_the_mean_where_laxs_is_eight_times_it(setting):
    run = SETTINGS[setting]
    ours = run(lambda x: parallel.pmean(gradient(W, x), "data"), X)
    theirs = run(lambda x: jax.lax.pmean(gradient(W, x), "data"), X)
    assert ours["w"] == 4.5
    assert theirs["w"] == (36.0 if setting == "checked" else 4.5)  # the trap


@each_setting
def test_psum_of_gradients_is_the_sum(setting):
    run = SETTINGS[setting]
    assert run(lambda x: parallel.psum(gradient(W, x), "data"), X)["w"] == 36.0
    assert run(lambda x: parallel.psum(gradient(parallel.varying(W, "data"), x), "data"), X)["w"] == 36.0
    assert run(lambda x: parallel.psum({"x": x, "none": None}, "data"), X) == {"x": 36.0, "none": None}


@each_setting
def test_pmean_of_losses_and_of_own_gradients_is_the_mean(setting):
    own = lambda x: parallel.pmean((x, gradient(parallel.varying(W, "data"), x)), "data")
    assert SETTINGS[setting](own, X) == (4.5, {"w": 4.5})


def test_several_axes_of_which_some_are_summed_already():
    @jax.jit
    @partial(jax.shard_map, mesh=GRID, in_specs=P("data", "model"), out_specs=P())
    def means(x):
        along_data = gradient(parallel.varying(W, "data"), x.sum())  # summed over "model" by jax.grad
        return parallel.pmean((x.sum(), gradient(W, x.sum()), along_data), ("data", "model"))

    assert means(X.reshape(4, 2)) == (4.5, {"w": 4.5}, {"w": 4.5})


def test_all_leaves_are_one_collective():
    from benchmarks.collectives import collectives

    tree = {"a": jnp.ones((8, 3)), "b": [jnp.ones(8), jnp.ones((8, 2, 2))]}
    f = lambda t: parallel.pmean(t, "data")
    program = jax.jit(jax.shard_map(f, mesh=MESH, in_specs=P("data"), out_specs=P())).lower(tree).compile()
    assert {kind: x.operations for kind, x in collectives(program).items()} == {"all-reduce": 1}


TREE = {"matrix": np.arange(48.0).reshape(8, 6), "vector": np.arange(5.0), "deep": [np.full((16,), 3.0)]}
SPECS = {"matrix": P("data"), "vector": P(), "deep": P("data")}
NORM = np.sqrt(sum(np.sum(np.square(x)) for x in jax.tree.leaves(TREE)))
FLOATS = jax.tree.map(jnp.float32, TREE)


@pytest.mark.parametrize(("check_vma", "specs"), [(True, None), (True, SPECS), (False, SPECS)])
def test_the_norm_of_a_tree_in_parts_is_that_of_the_whole(check_vma, specs):
    f = lambda tree: parallel.global_norm(tree, "data", specs)
    found = jax.shard_map(f, mesh=MESH, in_specs=(SPECS,), out_specs=P(), check_vma=check_vma)(FLOATS)
    np.testing.assert_allclose(found, NORM, rtol=1e-6)  # float32


def test_the_norm_where_types_do_not_tell_counts_each_leaf_as_a_part():
    f = lambda tree: parallel.global_norm(tree, "data")
    found = jax.shard_map(f, mesh=MESH, in_specs=(SPECS,), out_specs=P(), check_vma=False)(FLOATS)
    squares = [np.sum(np.square(x)) for x in (TREE["matrix"], TREE["deep"][0], *[TREE["vector"]] * 8)]
    np.testing.assert_allclose(found, np.sqrt(sum(squares)), rtol=1e-6)  # float32


def test_the_norm_over_two_axes_of_leaves_that_lie_along_different_ones():
    from benchmarks.collectives import collectives

    specs = {"matrix": P("data", "model"), "vector": P(), "deep": [P("model")]}
    mapped = partial(jax.shard_map, mesh=GRID, in_specs=(specs,), out_specs=P())
    norm = jax.jit(mapped(lambda tree: parallel.global_norm(tree, ("data", "model")))).lower(FLOATS).compile()
    np.testing.assert_allclose(norm(FLOATS), NORM, rtol=1e-6)  # float32
    assert {kind: x.operations for kind, x in collectives(norm).items()} == {"all-reduce": 1}


@each_setting
def test_all_finite_is_of_all_devices(setting):
    f = lambda x: parallel.all_finite({"x": x, "step": jnp.int32(3)}, "data")
    assert SETTINGS[setting](f, X) == True  # noqa: E712, an array
    assert SETTINGS[setting](f, X.at[3].set(jnp.nan)) == False  # noqa: E712


@pytest.mark.parametrize("name", ["psum", "pmean", "global_norm", "all_finite", "varying"])
def test_an_axis_that_is_not_there_is_an_error_that_says_so(name):
    f = getattr(parallel, name)
    with pytest.raises(ValueError, match=f'`{name}`: the axis "data" is bound by no `jax.shard_map`'):
        f({"w": jnp.ones(2)}, "data")
    with pytest.raises(ValueError, match=f"`{name}`: axis must be the name"):
        f({"w": jnp.ones(2)}, None)
    with pytest.raises(TypeError, match=f"`{name}`: axis must be the name"):
        f({"w": jnp.ones(2)}, 0)


def test_specs_that_do_not_fit_are_an_error():
    norm = lambda specs: jax.shard_map(
        lambda tree: parallel.global_norm(tree, "data", specs), mesh=MESH, in_specs=(SPECS,), out_specs=P()
    )(FLOATS)
    with pytest.raises(ValueError, match="`global_norm`: specs must have the tree's structure"):
        norm({"matrix": P("data")})
    with pytest.raises(TypeError, match="`global_norm`: specs must hold a PartitionSpec"):
        norm({**SPECS, "vector": None})

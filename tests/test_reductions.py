"""Sums across devices: the numbers of `jnp.sum`, in few collectives. Counts are read from compiled programs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.collectives import collectives
from gradtx.reductions import crosses_devices, together

P = PartitionSpec
SPECS = {
    "both": P("a", "b"),
    "turned": P("b", "a"),
    "one": P("a"),
    "last": P(None, "b"),
    "flat": P(("a", "b")),
    "none": P(),
}


def mesh_of(kind=AxisType.Explicit):
    return jax.make_mesh((4, 2), ("a", "b"), (kind, kind))


def leaves(mesh, dtype=jnp.float32, shape=(8, 16), specs=SPECS):
    rng = np.random.default_rng(0)
    draw = lambda: jnp.asarray(rng.normal(size=shape) * 3, dtype)
    return [jax.device_put(draw(), NamedSharding(mesh, spec)) for spec in specs.values()]


def local(xs):
    return [jnp.asarray(np.asarray(x)) for x in xs]


def found(fn, *args):
    return {kind: n.operations for kind, n in collectives(jax.jit(fn).lower(*args).compile()).items()}


AXES = [None, 0, -1, (0, 1)]


@pytest.mark.parametrize("axes", AXES, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "complex64", "int32", "bool"])
def test_sums_are_those_of_the_whole_arrays_and_lie_as_they_do(dtype, axes):
    xs = leaves(mesh_of(), dtype)
    sums, plain = together([(x, axes) for x in xs]), [jnp.sum(x, axes) for x in xs]
    for ours, theirs, whole in zip(sums, plain, local(xs), strict=True):
        assert jax.typeof(ours) == jax.typeof(theirs)
        # the sums of up to 8 shards, each rounded, are rounded once more; bfloat16 has 8 bits
        rtol = 1e-2 if dtype == "bfloat16" else 2e-6
        np.testing.assert_allclose(np.asarray(ours, complex), np.asarray(jnp.sum(whole, axes), complex), rtol, 1e-5)


@pytest.mark.parametrize("jitted", [False, True])
def test_without_a_mesh_that_is_set_too(jitted):
    xs = leaves(mesh_of())
    sums = lambda xs: together([(x, 0) for x in xs])
    for ours, whole in zip((jax.jit(sums) if jitted else sums)(xs), local(xs), strict=True):
        np.testing.assert_allclose(ours, jnp.sum(whole, 0), rtol=1e-6, atol=1e-5)  # as above


def test_scalars_of_whatever_sharding_take_one_all_reduce():
    xs = leaves(mesh_of())
    assert found(lambda xs: together([(x, None) for x in xs]), xs) == {"all-reduce": 1}


def test_sums_that_stay_sharded_take_one_all_reduce_for_each_set_of_mesh_axes():
    xs = leaves(mesh_of(), specs={name: SPECS[name] for name in ("both", "turned", "none")})
    both = lambda xs: together([(x, i) for x in xs for i in (0, 1)])
    assert found(both, xs) == {"all-reduce": 2}
    assert found(lambda xs: together([(i * xs[0], 0) for i in range(3)]), xs) == {"all-reduce": 1}


def test_where_nothing_crosses_devices_nothing_is_sent():
    xs = leaves(mesh_of(), specs={"one": P("a"), "none": P()})
    assert not any(crosses_devices(x, 1) for x in xs) and not crosses_devices(xs[1])
    assert found(lambda xs: together([(x, 1) for x in xs] + [(xs[1], None)]), xs) == {}


def test_arrays_without_entries_and_without_dimensions():
    mesh = mesh_of()
    empty = jax.device_put(jnp.zeros((0, 4)), NamedSharding(mesh, P(None, "b")))
    scalar = jax.device_put(jnp.array(2.5), NamedSharding(mesh, P()))
    with jax.set_mesh(mesh):
        sums = jax.jit(lambda *xs: together([(x, None) for x in xs] + [(empty, 0), (empty, 1)]))(empty, scalar)
    assert sums[:2] == [0, 2.5] and not sums[2].any() and sums[2].shape == (4,) and sums[3].shape == (0,)
    assert together([]) == []


def test_infinities_and_nan_of_one_array_are_not_those_of_another():
    bad = {2: np.nan, 5: np.inf}
    xs = [
        jax.device_put(np.asarray(x) + np.float32(bad.get(i, 0)), x.sharding) for i, x in enumerate(leaves(mesh_of()))
    ]
    sums = together([(x, None) for x in xs])
    assert [bool(jnp.isnan(x)) for x in sums] == [False, False, True, False, False, False]
    assert [bool(jnp.isinf(x)) for x in sums] == [False, False, False, False, False, True]


def test_on_a_mesh_whose_types_do_not_tell_it_is_the_sum():
    xs = leaves(mesh_of(AxisType.Auto))
    text = lambda fn: jax.jit(fn).lower(xs).as_text()
    assert text(lambda xs: [jnp.sum(x) for x in xs]) == text(lambda xs: together([(x, None) for x in xs]))


def test_a_part_of_an_array_on_a_manual_axis_is_summed_for_itself():
    mesh = mesh_of()
    (x,) = leaves(mesh, specs={"both": P("a", "b")})
    sums = jax.shard_map(
        lambda x: together([(x, None)])[0][None, None], mesh=mesh, in_specs=P("a", "b"), out_specs=P("a", "b")
    )
    expected = np.asarray(x).reshape(4, 2, 2, 8).sum((1, 3))
    np.testing.assert_allclose(jax.jit(sums)(x), expected, rtol=1e-5, atol=1e-5)  # float32, 16 entries


def test_beside_a_manual_axis_the_others_are_summed_over():
    mesh = mesh_of()
    x, y = leaves(mesh, specs={"both": P("a", "b"), "last": P(None, "b")})
    kinds = []

    def sums(x, y):
        total, same = together([(x, None), (y, None)])
        kinds.append(jax.typeof(same))
        return total[None], same

    with jax.set_mesh(mesh):
        mapped = jax.shard_map(sums, in_specs=(P("a"), P()), out_specs=(P("a"), P()), axis_names={"a"})
        total, same = jax.jit(mapped)(x, y)
    np.testing.assert_allclose(total, np.asarray(x).reshape(4, 32).sum(1), rtol=1e-5, atol=1e-5)  # float32, 32 entries
    np.testing.assert_allclose(same, np.asarray(y).sum(), rtol=1e-5)


@pytest.mark.parametrize("axes", AXES, ids=str)
def test_derivatives_and_batches(axes):
    mesh = mesh_of()
    xs = leaves(mesh, shape=(8, 16))

    def loss(xs):
        return sum(jnp.sum(jnp.sin(x)) for x in together([(x**2, axes) for x in xs]))

    def plain(xs):
        return sum(jnp.sum(jnp.sin(jnp.sum(x**2, axes))) for x in xs)

    with jax.set_mesh(mesh):
        ours = jax.jit(jax.grad(loss))(xs)
    for a, x, b in zip(ours, xs, jax.grad(plain)(local(xs)), strict=True):
        assert jax.typeof(a) == jax.typeof(x)
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)  # the slope of a sine at up to 2000
    batch = [jnp.stack([x, 2 * x, 3 * x]) for x in xs]
    many = lambda xs: together([(x, axes) for x in xs])
    with jax.set_mesh(mesh):
        ours = jax.jit(jax.vmap(many))(batch)
    for a, x in zip(ours, local(batch), strict=True):
        np.testing.assert_allclose(a, jax.vmap(lambda x: jnp.sum(x, axes))(x), rtol=1e-5, atol=1e-4)


def test_a_batch_may_be_sharded_too():
    mesh = mesh_of()
    (x,) = leaves(mesh, specs={"both": P("a", "b")})
    sums = jax.vmap(lambda x: together([(x, None)])[0])
    with jax.set_mesh(mesh):
        np.testing.assert_allclose(jax.jit(sums)(x), np.asarray(x).sum(1), rtol=1e-5, atol=1e-5)

"""Formulas that ask for sums on their way: on a mesh whose types tell the sharding, all leaves ask together."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from benchmarks.collectives import collectives
from gradtx import leafwise
from gradtx.formulas import alike
from gradtx.reductions import occurs, summed

P = PartitionSpec
SHAPES = {"a": (8, 4), "b": (8, 4), "c": (8,), "d": (4, 8), "e": ()}
SPECS = {"a": P("x"), "b": P("x"), "c": P("x"), "d": P(None, "x"), "e": P()}


def trees():
    """The same numbers on a mesh and on one device."""
    mesh, rng = jax.make_mesh((8,), ("x",)), np.random.default_rng(0)
    plain = {name: rng.normal(size=shape).astype(np.float32) for name, shape in SHAPES.items()}
    placed = {name: jax.device_put(x, NamedSharding(mesh, SPECS[name])) for name, x in plain.items()}
    return mesh, placed, jax.tree.map(jnp.asarray, plain)


def standardized(x, scale):
    """Two sums, the second of what the first gives; a vector asks for the first alone, a scalar for none."""
    if not x.ndim:
        return x, None
    (total,) = yield from summed((x, None))
    x = x - total / x.size
    if x.ndim == 1:
        return x, total
    square, rows = yield from summed((x**2, None), (x, 0))
    return scale * x / jnp.sqrt(square) + rows, total


def test_a_formula_that_waits_for_sums_gives_what_it_gives_where_it_need_not():
    mesh, placed, plain = trees()
    run = lambda tree: leafwise.unzip_map(standardized, tree, dict.fromkeys(tree, 2.0), outputs=2)
    with jax.set_mesh(mesh):
        ours = [run(placed), jax.jit(run)(placed)]
    for found in ours:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), found, run(plain))  # float32


def test_each_round_of_sums_is_one_collective():
    mesh, placed, _ = trees()
    run = lambda tree: leafwise.unzip_map(standardized, tree, dict.fromkeys(tree, 2.0), outputs=2)
    with jax.set_mesh(mesh):
        found = collectives(jax.jit(run).lower(placed).compile())
    assert {kind: n.operations for kind, n in found.items()} == {"all-reduce": 2}


def test_leaves_that_look_alike_share_the_traces_of_each_round():
    mesh, placed, _ = trees()
    seen = []

    def leaf(x):
        seen.append(x.shape)
        return x - (yield from summed((x, None)))[0]

    with jax.set_mesh(mesh):
        jax.jit(lambda tree: leafwise.map(leaf, [tree["a"]] * 5)).lower(placed)
    assert seen == [(8, 4)] * 2  # one to ask, one to go on


def test_where_types_tell_nothing_there_is_one_trace():
    seen = []

    def leaf(x):
        seen.append(x.shape)
        return x - (yield from summed((x, None)))[0]

    jax.jit(lambda tree: leafwise.map(leaf, tree)).lower([jnp.ones(3)] * 5)
    assert seen == [(3,)]


def test_whether_an_entry_is_somewhere():
    mesh, placed, plain = trees()
    largest = max(float(x.max()) for x in plain.values())
    for bound, expected in ((largest, False), (0.99 * largest, True)):
        with jax.set_mesh(mesh):
            assert leafwise.anywhere(lambda x, bound=bound: x > bound, placed) == expected
    assert alike(lambda x: (yield from occurs(x > 0)), [(jnp.zeros(2),), (jnp.ones(2),)]) == [False, True]

"""Items of several arrays on a mesh: a gradient with statistics of its sides, moments and numbers beside it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.collectives import collectives
from gradtx.linalg.axes import Axes, as_matrices, axes, every_axis, factor_axes, factors, from_matrices
from gradtx.linalg.matrices import map_stacks

P = PartitionSpec
MATRIX, FACTOR = axes(2, 0, 1), axes(2, 0, 1)
BOTH = ("a", "b")


@pytest.fixture
def mesh():
    return jax.make_mesh((4, 2), ("a", "b"), (AxisType.Explicit,) * 2)


def put(mesh, shape, spec, seed=0, dtype=np.float32):
    x = np.random.default_rng([seed, *shape]).normal(size=shape).astype(dtype)
    return jax.device_put(x, NamedSharding(mesh, spec))


def unfolded(x, side):
    """Of stacked tensors, a side as rows and all others as columns."""
    x = jnp.moveaxis(x, side + 1, 1)
    return x.reshape(*x.shape[:2], math.prod(x.shape[2:]))


def statistics(stacks, decay=0.5):
    """Of g and a factor for each of its sides: g times the new factors, and these."""
    g, sides = stacks[0], stacks[1 : stacks[0].ndim]
    moments = [unfolded(g, i) @ unfolded(g, i).mT / max(1, unfolded(g, i).shape[-1]) for i in range(g.ndim - 1)]
    found = [decay * side + moment for side, moment in zip(sides, moments, strict=True)]
    for i, side in enumerate(found):
        rest = [n for k, n in enumerate(g.shape[1:]) if k != i]
        g = jnp.moveaxis((side @ unfolded(g, i)).reshape(len(g), g.shape[i + 1], *rest), 1, i + 1)
    return g, *found


def alone(fn, item, places, *operands):
    """The results for one item on one device."""
    plain = [jnp.asarray(np.asarray(x)) for x in item]
    results = fn(tuple(as_matrices(x, a) for x, a in zip(plain, places, strict=True)), *operands)
    return [from_matrices(y, a, x.shape) for y, a, x in zip(results, places, plain, strict=False)]


def check(mesh, items, places, *operands, fn=statistics, **options):
    """Each result is that of its item, and lies as what it takes the place of. Returns what traveled."""
    run = jax.jit(lambda items, *operands: map_stacks(fn, items, places, operands, **options))
    with jax.set_mesh(mesh):
        program = run.lower(items, *operands).compile()
    found = program(items, *operands)
    for item, its_places, results in zip(items, places, found, strict=True):
        for x, y, wanted in zip(item, results, alone(fn, item, its_places, *operands), strict=False):
            assert y.dtype == x.dtype and y.sharding.is_equivalent_to(x.sharding, x.ndim)
            np.testing.assert_allclose(y, wanted, rtol=2e-5, atol=2e-5 * np.abs(wanted).max(initial=0))
        assert len(results) == len(alone(fn, item, its_places, *operands))
    return {kind: count.operations for kind, count in collectives(program).items()}


def matrices(mesh, count, shape, spec, left, right, beside=()):
    """Items of a matrix, its two factors and more matrices, by how they lie."""
    rows, columns = shape
    shapes = [(shape, spec), ((rows, rows), left), ((columns, columns), right), *((shape, s) for s in beside)]
    items = [[put(mesh, s, lies, 10 * n + k) for k, (s, lies) in enumerate(shapes)] for n in range(count)]
    return items, [[MATRIX, FACTOR, FACTOR, *[MATRIX] * len(beside)]] * count


def joined(*groups):
    return [item for items, _ in groups for item in items], [place for _, places in groups for place in places]


def test_arrays_along_the_same_mesh_axes_travel_together(mesh):
    items, places = matrices(mesh, 8, (8, 16), P("a", "b"), P(BOTH), P(BOTH), [P("a", "b")])
    assert check(mesh, items, places) == {"all-to-all": 2}
    with jax.set_mesh(mesh):
        program = jax.jit(lambda items: map_stacks(statistics, items, places)).lower(items).compile()
    entries = 8 * 16 + 8 * 8 + 16 * 16  # of each item an eighth, on eight devices; what `fn` does not make goes one way
    assert collectives(program)["all-to-all"].bytes == 4 * (2 * entries + 8 * 16)


def test_items_that_lie_in_several_ways_travel_together(mesh):
    groups = [
        matrices(mesh, 3, (8, 16), P("a", "b"), P(BOTH), P(BOTH)),
        matrices(mesh, 3, (8, 16), P("b", "a"), P(("b", "a")), P(None, BOTH)),
        matrices(mesh, 2, (8, 16), P(None, BOTH), P("a", "b"), P("b", "a")),
    ]
    assert check(mesh, *joined(*groups)) == {"all-to-all": 2}
    assert check(mesh, *joined(*groups), max_bytes=1) == {"all-to-all": 2}
    assert check(mesh, *joined(*groups, groups[0]), max_bytes=1) == {"all-to-all": 4}  # of 8 and 3


def test_factors_that_lie_along_one_axis_are_gathered_along_the_other(mesh):
    items, places = matrices(mesh, 8, (8, 16), P("a", "b"), P("a"), P("b"))
    assert check(mesh, items, places) == {"all-to-all": 6, "all-gather": 2}
    items, places = matrices(mesh, 8, (8, 16), P("a", "b"), P(), P())
    assert check(mesh, items, places) == {"all-to-all": 2, "all-gather": 1}
    items, places = matrices(mesh, 8, (8, 16), P(), P("b"), P("a"))
    assert check(mesh, items, places) == {"all-to-all": 4, "all-gather": 3}
    items, places = matrices(mesh, 8, (8, 16), P("a"), P("a"), P("a"))
    assert check(mesh, items, places) == {"all-to-all": 2, "all-gather": 1}  # the work is divided along "b"
    items, places = matrices(mesh, 3, (8, 16), P("b"), P("a"), P())
    assert check(mesh, items, places) == {"all-to-all": 4, "all-gather": 3}


def test_one_item_is_gathered(mesh):
    items, places = matrices(mesh, 1, (8, 16), P("a", "b"), P(BOTH), P(BOTH), [P("a", "b")])
    assert check(mesh, items, places) == {"all-gather": 1}
    items, places = matrices(mesh, 1, (8, 16), P("a", "b"), P("a"), P())
    assert check(mesh, items, places) == {"all-gather": 2}
    items, places = matrices(mesh, 1, (8, 16), P(), P(), P())
    assert check(mesh, items, places) == {}


def test_tensors_with_any_number_of_sides(mesh):
    def item(shape, spec, sides, seed):
        array = [put(mesh, shape, spec, seed)]
        return array + [put(mesh, (shape[i], shape[i]), lies, seed) for i, lies in enumerate(sides)]

    place = lambda n: [every_axis(n), *[FACTOR] * n]
    convolutions = [item((3, 2, 8, 16), P(None, None, "a", "b"), [P(), P(), P(BOTH), P(BOTH)], n) for n in range(3)]
    vectors = [item((8,), P(names), [P(names)], n) for n, names in enumerate(("a", BOTH, BOTH))]
    scalars = [item((), P(), [], 0)]
    check(mesh, convolutions + vectors + scalars, [place(4)] * 3 + [place(1)] * 3 + [place(0)])


def test_numbers_beside_each_tensor_and_stacks(mesh):
    """A batch with a number for each of its tensors, sharded as it is; experts stay where they are."""
    fn = lambda stacks: (stacks[0] * stacks[1][:, None, None], jnp.sum(jnp.abs(stacks[0]), (1, 2)) + stacks[1])
    item = lambda spec, of_number: [put(mesh, (8, 4, 16), spec), put(mesh, (8,), of_number)]
    places = [[axes(3, 1, 2), Axes((0,), ())]]
    assert check(mesh, [item(P(BOTH), P(BOTH))], places, fn=fn) == {}
    assert check(mesh, [item(P("a", None, "b"), P("a"))], places, fn=fn) == {"all-to-all": 2, "all-gather": 1}
    assert check(mesh, [item(P(None, "a", "b"), P())], places, fn=fn) == {"all-to-all": 2, "all-gather": 1}
    found = check(mesh, [item(P("a", None, "b"), P())], places, fn=fn)  # the numbers are laid as the batch, and back
    assert found["all-to-all"] == 2
    check(mesh, [item(P(None, None, "b"), P(BOTH))], places, fn=fn)
    check(mesh, [item(P(("b", "a")), P(BOTH))], places, fn=fn)
    two = [[put(mesh, (2, 4, 4, 16), P(None, "a")), put(mesh, (8,), P(None))]]
    with pytest.raises(ValueError, match="sharded differently"):
        check(mesh, two, [[axes(4, 2, 3), Axes((0,), ())]], fn=fn)
    two = [[put(mesh, (2, 4, 4, 16), P(None, None, "a")), put(mesh, (8,), P(None))]]
    check(mesh, two, [[axes(4, 2, 3), Axes((0,), ())]], fn=fn)


def test_arrays_of_several_dtypes(mesh):
    def fn(stacks):
        g, mu, signs = stacks
        mean = (mu.astype(jnp.float32) + g) / 2
        return mean @ mean.mT @ mean, mean.astype(jnp.bfloat16), jnp.sign(g).astype(jnp.int8) * signs

    spec = P("a", "b")
    items = [[put(mesh, (8, 16), spec, n, dtype) for dtype in (np.float32, jnp.bfloat16, np.int8)] for n in range(3)]
    assert check(mesh, items, [[MATRIX] * 3] * 3, fn=fn) == {"all-to-all": 6}


def test_sides_and_batches_of_nothing(mesh):
    groups = [
        matrices(mesh, 2, (0, 8), P(None, "a"), P(), P("a")),
        matrices(mesh, 1, (8, 0), P(BOTH), P(BOTH), P()),
        matrices(mesh, 1, (0, 0), P(), P(), P()),
    ]
    fn = lambda stacks: (stacks[0], *(s + 1 for s in stacks[1:3]))
    check(mesh, *joined(*groups), fn=fn)
    stack = [[put(mesh, (0, 8, 16), P(None, "a")), put(mesh, (0, 8, 8), P()), put(mesh, (0, 16, 16), P())]]
    assert check(mesh, stack, [[axes(3, 1, 2)] * 3]) == {} and map_stacks(statistics, [], []) == []


def test_a_function_that_makes_nothing(mesh):
    items, places = matrices(mesh, 2, (8, 16), P("a", "b"), P("a"), P())
    assert check(mesh, items, places, fn=lambda stacks: ()) == {}


@pytest.mark.parametrize("sizes", [(8, 1), (1, 8), (1, 1)])
def test_mesh_axes_of_one_device(sizes):
    mesh = jax.make_mesh(sizes, ("a", "b"), (AxisType.Explicit,) * 2)
    groups = [
        matrices(mesh, 2, (8, 16), P("a", "b"), P("a"), P("b")),
        matrices(mesh, 2, (8, 16), P("a", None), P(BOTH), P()),
        matrices(mesh, 1, (8, 16), P(None, "b"), P("b"), P()),
    ]
    check(mesh, *joined(*groups))


def test_outside_of_jit_and_beside_arrays_elsewhere(mesh):
    items, places = matrices(mesh, 2, (8, 16), P("a", "b"), P("a"), P())
    items.append([jnp.asarray(np.asarray(x)) for x in items[0]])  # on one device
    items.append([items[1][0], *items[2][1:]])
    found = map_stacks(statistics, items, [places[0]] * 4, (jnp.float32(0.9),))
    for item, results in zip(items, found, strict=True):
        for y, wanted in zip(results, alone(statistics, item, places[0], 0.9), strict=True):
            np.testing.assert_allclose(y, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [1, 3])
def test_operands_may_be_stacked_and_differentiated(mesh, count):
    items, places = matrices(mesh, count, (8, 16), P("a", "b"), P("a"), P(BOTH))
    run = lambda decay, items: map_stacks(statistics, items, places, (decay,))
    loss = lambda results: sum(jnp.sum(y**2) for found in results for y in found)
    direct = lambda decay, items: [alone_traced(item, decay) for item in items]
    alone_traced = lambda item, decay: [y[0] for y in statistics(tuple(x[None] for x in item), decay)]
    decays = jnp.array([0.5, 0.9])
    plain = [[jnp.asarray(np.asarray(x)) for x in item] for item in items]
    with jax.set_mesh(mesh):
        stacked = jax.jit(jax.vmap(run, (0, None)))(decays, items)
        slopes = jax.jit(jax.grad(lambda *args: loss(run(*args)), (0, 1)))(0.9, items)
    wanted = jax.vmap(direct, (0, None))(decays, plain)
    wanted_slopes = jax.grad(lambda *args: loss(direct(*args)), (0, 1))(0.9, plain)
    for x, y in zip(*map(jax.tree.leaves, ((stacked, slopes), (wanted, wanted_slopes))), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())


@pytest.mark.parametrize("spec", [P("b", "a"), P("a"), P(BOTH)])
def test_models_that_are_stacked(mesh, spec):
    items, places = matrices(mesh, 2, (8, 16), P("a", "b"), P("a"), P())
    rest = lambda x: [entry for entry in (*x.sharding.spec, None, None)[:2] if entry is None or entry not in str(spec)]
    items = [
        [put(mesh, (8, *x.shape), P(spec[0], *(rest(x) if len(rest(x)) == 2 else []))) for x in item] for item in items
    ]
    with jax.set_mesh(mesh):
        found = jax.jit(jax.vmap(lambda items: map_stacks(statistics, items, places)))(items)
    for item, results in zip(items, found, strict=True):
        wanted = statistics(tuple(jnp.asarray(np.asarray(x)) for x in item))
        for x, y, w in zip(item, results, wanted, strict=False):
            assert y.sharding.is_equivalent_to(x.sharding, 3)
            np.testing.assert_allclose(y, w, rtol=1e-4, atol=1e-4)


def test_within_some_manual_axes_the_others_are_spread_over(mesh):
    """Some arrays differ along the outer axis, and some are the same."""
    g, left = put(mesh, (4, 6, 8, 16), P("a", None, "b")), put(mesh, (6, 8, 8), P(None, "b"))

    def run(g, left):
        fn = lambda stacks: (stacks[1] @ stacks[0], 2 * stacks[1])
        ((y, z),) = map_stacks(fn, [(g[0], left)], [[axes(3, 1, 2)] * 2])
        return y[None], z

    mapped = jax.shard_map(run, mesh=mesh, in_specs=(P("a"), P()), out_specs=(P("a"), P()), axis_names={"a"})
    with jax.set_mesh(mesh):
        y, z = jax.jit(mapped)(g, left)
    np.testing.assert_allclose(y, np.asarray(left) @ np.asarray(g), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(z, 2 * np.asarray(left))


def test_a_branch_within(mesh):
    """As what is done at some updates alone."""
    items, places = matrices(mesh, 3, (8, 16), P("a", "b"), P(BOTH), P())

    def fn(stacks, now):
        return jax.lax.cond(now, lambda: statistics(stacks), lambda: tuple(stacks))

    for now in (True, False):
        found = check(mesh, items, places, jnp.array(now), fn=fn)
    assert found == {"all-to-all": 2, "all-gather": 1}


def test_factors_lie_along_all_mesh_axes_of_their_tensor(mesh):
    shape = jax.ShapeDtypeStruct

    def specs(shapes, spec, places=None):
        with jax.set_mesh(mesh):
            x = shape(shapes, jnp.float32, sharding=NamedSharding(mesh, spec))
            make = lambda x: factors(x, every_axis(len(shapes)) if places is None else places)
            padded = lambda y: P(*y.sharding.spec, *[None] * (y.ndim - len(y.sharding.spec)))
            found = [padded(y) for y in jax.eval_shape(make, x)]
            concrete = [padded(y) for y in make(put(mesh, shapes, spec))]
        assert found == concrete
        return found

    assert specs((16, 8), P("a", "b")) == [P(BOTH, None)] * 2
    assert specs((16, 8), P("b", "a")) == [P(BOTH, None)] * 2
    assert specs((16, 8), P(("b", "a"))) == [P(BOTH, None)] * 2
    assert specs((12, 8), P("a", "b")) == [P("a", None), P(BOTH, None)]  # 8 does not divide 12
    assert specs((3, 2, 8, 16), P(None, None, "b")) == [P(None, None), *[P("b", None)] * 3]
    assert specs((16,), P("a")) == [P("a", None)]
    assert specs((4, 16, 8), P("a", None, "b"), axes(3, 1, 2)) == [P("a", "b", None)] * 2
    assert specs((16, 8), P()) == [P(None, None)] * 2
    assert specs((16, 64), P(None, "a"), Axes((), ((0,),))) == [P("a", None)]  # the side that has no statistics counts
    x = put(mesh, (16, 8), P("a", "b"))
    assert factor_axes(every_axis(2)) == MATRIX
    items, places = [[x, *factors(x, MATRIX)]] * 8, [[MATRIX, FACTOR, FACTOR]] * 8
    assert check(mesh, items, places) == {"all-to-all": 2}


def test_many_ways_to_lie(mesh):
    """Thirty items drawn at random: the dimensions, their roles, and the mesh axes along them."""
    rng = np.random.default_rng(0)
    items, places = [], []
    for seed in range(30):
        ndim = int(rng.integers(1, 4))
        shape = [int(rng.choice([8, 16])) for _ in range(ndim)]
        batch = rng.integers(0, 2)
        order = rng.permutation(ndim + batch).tolist()
        place = Axes(tuple(order[:batch]), tuple((i,) for i in order[batch:]))
        full = [0] * (ndim + batch)
        for i, n in zip(order, [8] * batch + shape, strict=True):
            full[i] = n
        along = rng.choice(["a", "b", ""]) if batch else ""

        def spec(axes_of_sides, n):
            entries = [()] * n
            for name in rng.permutation([name for name in BOTH if name != along])[: rng.integers(0, 3)].tolist():
                i = rng.choice(axes_of_sides)
                entries[i] = (*entries[i], name)
            return [entry or None for entry in entries]

        entries = spec(order[batch:], ndim + batch)
        if batch:
            entries[order[0]] = along or None
        item, its = [put(mesh, full, P(*entries), seed)], [place]
        for n in shape:
            entries = spec([batch, batch + 1], 2 + batch)
            if batch:
                entries[0] = along or None
            item.append(put(mesh, [8] * batch + [n, n], P(*entries), seed))
            its.append(factor_axes(place))
        items.append(item)
        places.append(its)
    check(mesh, items, places)

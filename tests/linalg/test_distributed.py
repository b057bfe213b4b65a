"""Matrices that lie on several devices, each computed whole on one: the numbers, and what travels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from benchmarks.collectives import collectives
from gradtx.linalg.axes import axes
from gradtx.linalg.matrices import map_matrices

P = PartitionSpec


@pytest.fixture
def mesh():
    return jax.make_mesh((4, 2), ("a", "b"), (AxisType.Explicit,) * 2)


def leaf(mesh, shape, spec, seed=0):
    x = np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
    return jax.device_put(x, NamedSharding(mesh, spec))


def cubic(x, scale=1.0):
    """Of a transpose the transpose: x times its squares, each matrix for itself."""
    return scale * (x @ x.mT @ x)


def compiled(mesh, leaves, places, *operands, fn=cubic, **options):
    run = jax.jit(lambda leaves, *operands: map_matrices(fn, leaves, places, operands, **options))
    with jax.set_mesh(mesh):
        return run.lower(leaves, *operands).compile()


def check(mesh, leaves, places, **options):
    """Each result is that of its leaf's matrices, and lies as the leaf does. Returns what traveled."""
    program = compiled(mesh, leaves, places, **options)
    for x, found, place in zip(leaves, program(leaves), places, strict=True):
        order = place.order
        matrices = np.asarray(x, np.float64).transpose(order).reshape(place.sizes(x.shape))
        wanted = cubic(matrices).reshape([x.shape[i] for i in order]).transpose(np.argsort(order))
        assert found.dtype == x.dtype and found.sharding.is_equivalent_to(x.sharding, x.ndim)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)  # sums of 32 products of about 10
    return {kind: count.operations for kind, count in collectives(program).items()}


def matrices(mesh, *groups):
    """Leaves of two dimensions: how many, their shape and how they lie."""
    leaves = [leaf(mesh, shape, spec, n) for count, shape, spec in groups for n in range(count)]
    return leaves, [axes(2, 0, 1)] * len(leaves)


def test_matrices_that_lie_in_several_ways_travel_together(mesh):
    groups = [
        (5, (8, 16), P("a", "b")),
        (4, (16, 8), P("a", "b")),
        (3, (16, 8), P("b", "a")),
        (3, (8, 16), P(("a", "b"), None)),
        (3, (8, 16), P(None, ("b", "a"))),
        (1, (8, 16), P(("b", "a"))),
    ]
    assert check(mesh, *matrices(mesh, *groups)) == {"all-to-all": 2}


def test_square_matrices_lie_the_same_way_or_as_transposes(mesh):
    leaves, places = matrices(mesh, (4, (8, 8), P("a", "b")), (4, (8, 8), P("b", "a")))
    assert check(mesh, leaves, places) == {"all-to-all": 2}
    text = compiled(mesh, leaves, places).as_text()
    assert "select" not in text  # one way for all: no device chooses


def test_eight_matrices_on_eight_devices_move_once_there_and_once_back(mesh):
    leaves, places = matrices(mesh, (4, (8, 16), P("a", "b")), (4, (16, 8), P("a", "b")))
    program = compiled(mesh, leaves, places)
    assert collectives(program) == {"all-to-all": (2, 2 * 8 * (8 * 16 // 8) * 4)}  # of each its part, in float32


@pytest.mark.parametrize("count", [1, 2, 7, 9])
def test_uneven_counts(mesh, count):
    moved = check(mesh, *matrices(mesh, (count, (8, 16), P("a", "b"))))
    assert moved == ({"all-gather": 1} if count == 1 else {"all-to-all": 2})


def test_axes_along_which_matrices_are_replicated_share_the_work(mesh):
    seen = []
    fn = lambda x: seen.append(len(x)) or cubic(x)
    leaves, places = matrices(mesh, (8, (8, 16), P("a")))
    assert check(mesh, leaves, places, fn=fn) == {"all-to-all": 2, "all-gather": 1} and seen == [1]
    assert check(mesh, leaves[:4], places[:4]) == {"all-to-all": 2}  # a matrix each along "a": no need of "b"
    leaves, places = matrices(mesh, (7, (4, 6), P()), (5, (6, 4), P()))
    seen.clear()
    assert check(mesh, leaves, places, fn=fn) == {"all-gather": 1} and seen == [2]
    assert check(mesh, leaves[:1], places[:1]) == {}


def test_stacked_layers_and_experts(mesh):
    leaves = [
        leaf(mesh, (3, 8, 16), P(None, "a", "b")),
        leaf(mesh, (5, 16, 8), P(None, "a", "b")),
        leaf(mesh, (8, 4, 12), P(("a", "b"))),  # one expert on each device
        leaf(mesh, (8, 12, 4), P(("a", "b"))),
    ]
    assert check(mesh, leaves, [axes(3, 1, 2)] * 4) == {"all-to-all": 2}  # those of the layers
    experts = [leaf(mesh, (4, 3, 8, 16), P("a", None, None, "b"))]
    program = compiled(mesh, experts, [axes(4, 2, 3)])
    assert "replica_groups={{0,1},{2,3},{4,5},{6,7}}" in program.as_text()  # "b" alone
    assert check(mesh, experts, [axes(4, 2, 3)]) == {"all-to-all": 2}
    assert check(mesh, [leaf(mesh, (4, 2, 8, 16), P("a"))], [axes(4, 2, 3)]) == {"all-gather": 1}  # divided along "b"


def test_rows_of_several_dimensions(mesh):
    cases = [
        ((2, 4, 3, 16), P("b", "a", None, None), (0, 1), 3),
        ((4, 2, 3, 16), P("a", None, None, "b"), (1, 0), 3),
        ((8, 2, 3, 2), P("a", None, None, "b"), 2, (3, 0)),
        ((2, 3, 8, 4), P(None, None, ("a", "b"), None), (0, 3), 2),
    ]
    leaves = [leaf(mesh, shape, spec) for shape, spec, _, _ in cases]
    check(mesh, leaves, [axes(4, rows, columns) for _, _, rows, columns in cases])


def test_large_groups_take_rounds(mesh):
    leaves, places = matrices(mesh, (5, (8, 16), P("a", "b")), (12, (16, 8), P("a", "b")))
    assert check(mesh, leaves, places, max_bytes=1) == {"all-to-all": 4, "all-gather": 1}  # of 8, 8 and 1
    assert check(mesh, leaves, places, max_bytes=2 * 8 * 16 * 4) == {"all-to-all": 2, "all-gather": 1}  # of 16 and 1
    stacked = [leaf(mesh, (19, 8, 16), P(None, "a", "b"))]
    assert check(mesh, stacked, [axes(3, 1, 2)], max_bytes=1) == {"all-to-all": 6}
    replicated, places = matrices(mesh, (17, (4, 6), P()))
    assert check(mesh, replicated, places, max_bytes=1) == {"all-gather": 2}  # the last one is computed everywhere


def test_rounds_take_less_memory(mesh):
    leaves, places = matrices(mesh, (64, (64, 64), P("a", "b")))

    def temporary(**options):
        with jax.set_mesh(mesh):
            program = jax.jit(lambda leaves: map_matrices(cubic, leaves, places, **options)).lower(leaves)
        # scheduled as for accelerators; by default the CPU does at once all that does not depend on each other
        frugal = program.compile({"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"})
        return frugal.memory_analysis().temp_size_in_bytes

    assert temporary(max_bytes=1) < 0.2 * temporary()  # 8 rounds


def test_what_travels_is_as_narrow_as_asked(mesh):
    leaves, places = matrices(mesh, (8, (8, 16), P("a", "b")), (8, (4, 4), P()))
    seen = []
    run = jax.jit(lambda xs: map_matrices(lambda x: seen.append(x.dtype) or cubic(x), xs, places, dtype="bfloat16"))
    with jax.set_mesh(mesh):
        program = run.lower(leaves)
    text = program.as_text()
    sent = re.findall(
        r"stablehlo\.(all_to_all|all_gather).*?-> tensor<\w*x(\w+)>", text
    )  # XLA for the CPU widens again
    assert sorted(sent) == [("all_gather", "bf16"), ("all_to_all", "bf16"), ("all_to_all", "bf16")]
    assert seen == [jnp.bfloat16] * 2
    for x, found in zip(leaves, program.compile()(leaves), strict=True):
        assert found.dtype == jnp.float32
        wanted = cubic(np.asarray(x))
        assert np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted)  # three roundings to 8 bits
    whole = leaves[0] + 1j * leaves[1]
    (found,) = jax.jit(lambda xs: map_matrices(cubic, xs, places[:1], dtype="bfloat16"))([whole])
    np.testing.assert_allclose(found, cubic(np.asarray(whole)), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("with_mesh", [False, True])
def test_outside_of_jit(mesh, with_mesh):
    leaves, places = matrices(mesh, (2, (8, 16), P("a", "b")), (1, (4, 4), P()))
    leaves.append(jnp.ones((3, 5)))  # on one device
    with jax.set_mesh(mesh if with_mesh else jax.sharding.get_mesh()):
        found = map_matrices(cubic, leaves, [*places, places[0]], (jnp.float32(2.0),))
    for x, y in zip(leaves, found, strict=True):
        np.testing.assert_allclose(y, 2 * cubic(np.asarray(x)), rtol=1e-4, atol=1e-4)
        assert y.sharding.is_equivalent_to(x.sharding, 2) or x is leaves[-1]


def test_operands_may_be_stacked_and_differentiated(mesh):
    leaves, places = matrices(mesh, (3, (8, 16), P("a", "b")), (3, (4, 4), P()))
    scales = jnp.array([1.0, 2.0])

    def run(scale, leaves):
        fn = lambda x, given: cubic(x, given["scale"] * given["number"])
        return map_matrices(fn, leaves, places, ({"scale": scale, "number": 1.0},))

    def loss(scale, leaves):
        return sum(jnp.sum(x**2) for x in run(scale, leaves))

    with jax.set_mesh(mesh):
        stacked = jax.jit(jax.vmap(run, (0, None)))(scales, leaves)
        slope, slopes = jax.jit(jax.grad(loss, (0, 1)))(2.0, leaves)
    plain = [jnp.asarray(np.asarray(x)) for x in leaves]
    direct = lambda scale, leaves: sum(jnp.sum(cubic(x, scale) ** 2) for x in leaves)
    wanted, wanteds = jax.grad(direct, (0, 1))(2.0, plain)
    np.testing.assert_allclose(slope, wanted, rtol=1e-4)
    for x, y, z, w in zip(plain, stacked, slopes, wanteds, strict=True):
        np.testing.assert_allclose(y, [cubic(x), cubic(x, 2.0)], rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(z, w, rtol=1e-4, atol=1e-4 * np.abs(w).max())


@pytest.mark.parametrize("spec", [P("b", "a"), P("a"), P(None, "a", "b"), P(("a", "b"))])
def test_models_that_are_stacked(mesh, spec):
    """As `jax.vmap` runs them, along mesh axes too."""
    x = leaf(mesh, (8, 4, 8, 16), spec)
    with jax.set_mesh(mesh):
        (found,) = jax.jit(jax.vmap(lambda x: map_matrices(cubic, [x], [axes(3, 1, 2)])))(x)
    assert found.sharding.is_equivalent_to(x.sharding, 4)
    np.testing.assert_allclose(found, cubic(np.asarray(x)), rtol=1e-4, atol=1e-4)


def test_along_manual_axes_each_device_computes_what_it_has(mesh):
    leaves, places = matrices(mesh, (3, (8, 16), P("a", "b")), (3, (8, 16), P()))
    seen = []
    fn = lambda x: seen.append(x.shape) or cubic(x)
    specs = [P("a", "b")] * 3 + [P()] * 3
    run = jax.shard_map(lambda xs: map_matrices(fn, xs, places), mesh=mesh, in_specs=(specs,), out_specs=specs)
    program = jax.jit(run).lower(leaves).compile()
    assert seen == [(3, 2, 8), (3, 8, 16)] and not collectives(program)
    np.testing.assert_allclose(program(leaves)[-1], cubic(np.asarray(leaves[-1])), rtol=1e-4, atol=1e-4)


def test_within_some_manual_axes_the_others_are_spread_over(mesh):
    x = leaf(mesh, (4, 6, 8, 16), P("a", None, "b", None))

    def run(x):
        (y,) = map_matrices(cubic, [x[0]], [axes(3, 1, 2)])
        return y[None]

    mapped = jax.shard_map(run, mesh=mesh, in_specs=P("a"), out_specs=P("a"), axis_names={"a"})
    with jax.set_mesh(mesh):
        program = jax.jit(mapped).lower(x).compile()
    assert collectives(program)["all-to-all"].operations == 2  # and gathers around the outer map, of JAX's own
    np.testing.assert_allclose(program(x), cubic(np.asarray(x)), rtol=1e-4, atol=1e-4)


def test_nothing_and_shapes_alone(mesh):
    leaves = [leaf(mesh, (0, 8), P(None, "a")), leaf(mesh, (0, 8, 8), P(None, "a", "b")), leaf(mesh, (8, 0), P("a"))]
    places = [axes(2, 0, 1), axes(3, 1, 2), axes(2, 0, 1)]
    assert check(mesh, leaves, places) == {} and map_matrices(cubic, [], []) == []
    shape = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("a", "b")))
    with jax.set_mesh(mesh):
        (found,) = jax.eval_shape(lambda x: map_matrices(cubic, [x], [axes(2, 0, 1)]), shape)
    assert found.shape == (8, 16) and found.sharding.spec == P("a", "b")


def test_many_ways_to_lie(mesh):
    """Thirty leaves drawn at random: dimensions, their roles, and the mesh axes along them."""
    rng = np.random.default_rng(0)
    leaves, places = [], []
    for seed in range(30):
        order = rng.permutation(ndim := int(rng.integers(2, 5))).tolist()
        cuts = sorted(rng.choice(np.arange(1, ndim), size=min(2, ndim - 1), replace=False).tolist())
        rows, columns = order[: cuts[0]], order[cuts[0] : cuts[-1] if len(cuts) > 1 else ndim]
        spec: list = [None] * ndim
        for name in rng.permutation(["a", "b"])[: rng.integers(0, 3)].tolist():
            i = int(rng.integers(ndim))
            spec[i] = (*(spec[i] or ()), name)
        leaves.append(leaf(mesh, tuple(int(rng.choice([8, 16])) if s else 2 for s in spec), P(*spec), seed))
        places.append(axes(ndim, tuple(rows), tuple(columns)))
    check(mesh, leaves, places)

"""scale_by_apollo, apollo, apollo_mini: Zhu et al. 2025 (arXiv 2412.05270), Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx import GaLoreDimensionNumbers
from tests.optimizers.low_rank_oracle import limiter, low_rank, ratio, sides, singular_vectors
from tests.oracle import check, check_same

SHAPES = {"tall": (7, 4), "wide": (3, 6), "square": (4, 4), "bias": (3,), "scale": ()}


def drawn(key, shape, dtype, *, name, refresh):
    """A projection by name and time, for both sides of the comparison."""
    size, rank = shape
    x = jnp.arange(size * rank).reshape(shape) + len(name) + 3 * refresh
    return jnp.sin(x.astype(dtype)) / rank**0.5


def recorded(rank, gap, side):
    """Its P of rows and columns in NumPy."""

    def vectors(path, g, t):
        refresh = (t - 1) // gap
        entries = lambda size: np.arange(size * rank).reshape(size, rank) + len(path) + 3 * refresh
        return [np.sin(entries(n).astype(np.float64)) / rank**0.5 if on else None
                for n, on in zip(g.shape, sides(g.shape, side), strict=True)]  # fmt: skip

    return vectors


def apollo(lr, rank, gap, *, scale=1.0, side="shorter", scale_type="channel", scale_front=False, growth=1.01,
           vectors=None, **options):  # fmt: skip
    def rule(params):
        limited = limiter(growth)

        def combine(g, r, n, back, axis, path):
            u = g * ratio(n, r, axis, scale_type) * (scale**0.5 if scale_front else 1)
            return limited(u, path) * (1 if scale_front else scale**0.5)

        return low_rank(lr, combine, vectors or recorded(rank, gap, side), side, after=True, **options)(params)

    return rule


OPTIONS = [
    {},
    {"scale": 16.0, "side": "longer"},
    {"scale": 16.0, "scale_front": True, "side": "rows"},
    {"scale_type": "tensor", "side": "columns"},
    {"b1": 0.5, "b2": 0.75, "eps": 0.1, "decay": 0.1, "corrected": False, "growth": None},
]


@pytest.mark.parametrize(
    ("options", "precision"), [*[(x, "float64") for x in OPTIONS], (OPTIONS[0], "float32"), (OPTIONS[-1], "float32")]
)
def test_channels_are_scaled_as_their_projections(options, precision):
    names = {"growth": "norm_growth", "decay": "weight_decay", "corrected": "bias_correction"}
    ours = {names.get(name, name): x for name, x in options.items()}
    rule = apollo(0.02, 2, 5, **{"eps": 1e-6} | options)
    # float32: the root of 1 - 0.999 is off by 3e-5
    tolerance = 1e-4 if precision == "float32" else None
    check(gradtx.apollo(0.02, 2, 5, projection=drawn, **ours), rule, precision, shapes=SHAPES, tolerance=tolerance)


def test_the_projection_may_be_of_singular_vectors():
    vectors = singular_vectors(2)
    rule = apollo(0.02, 2, 100, eps=1e-6, vectors=lambda path, g, t: vectors(path, g, t))
    check(gradtx.apollo(0.02, 2, 100, projection="svd"), rule, shapes=SHAPES)


def test_mini_has_one_direction_and_one_factor():
    mini = gradtx.apollo_mini(0.02, key=3, weight_decay=0.1)
    assert mini == gradtx.apollo(0.02, 1, scale=128.0, scale_type="tensor", key=3, weight_decay=0.1)
    state = mini.init({"w": jnp.ones((8, 4)), "b": jnp.ones(4)})["scale_by_apollo"]
    assert state.base_optimizer_state.mu["w"].shape == (8, 1)
    tx = gradtx.scale_by_apollo(1, scale_type="tensor")
    g = jax.random.normal(jax.random.key(0), (8, 4))
    u = tx.update(g, tx.init(g))[0]
    np.testing.assert_allclose(u / g, np.full((8, 4), (u / g)[0, 0]), rtol=1e-5)  # float32


def test_scale_before_or_after_the_limit_differs_in_its_eps_alone():
    front, back = (gradtx.apollo(0.01, 2, scale=9.0, scale_front=x) for x in (True, False))
    check_same(front, back, shapes={"w": (5, 3)}, tolerance=1e-7)


def test_nothing_of_a_random_projection_is_stored():
    params = {"tall": jnp.ones((64, 16)), "bias": jnp.ones(16)}
    state = gradtx.scale_by_apollo(4).init(params)
    assert state.projector == {"tall": None, "bias": None}
    moments = 2 * (64 * 4 + 16)
    assert sum(x.size for x in jax.tree.leaves(state)) == moments + 3  # two counts and a norm


def projection_of(tx, count, shape=(6, 4)):
    """P^T of g = 1: what the base optimizer sees of the identity."""
    state = tx.init(jnp.zeros(shape))
    state = state._replace(count=jnp.asarray(count, jnp.int32))
    return tx.update(jnp.eye(*shape), state)[1].base_optimizer_state.trace


def test_a_projection_is_a_function_of_key_time_and_place():
    make = lambda **options: gradtx.scale_by_apollo(2, 5, base_optimizer=gradtx.trace(0.0), **options)
    first = projection_of(make(), 0)
    for count, options, same in (0, {}, True), (4, {}, True), (5, {}, False), (0, {"key": 1}, False):
        assert jnp.array_equal(projection_of(make(**options), count), first) == same
    with_key = make(key=jax.random.key(0))
    assert jnp.array_equal(projection_of(with_key, 0), first)
    tx, g = make(), jnp.eye(4)
    both = tx.update([g, g], tx.init([g, g]))[1].base_optimizer_state.trace
    assert not jnp.array_equal(*both)
    alone = tx.update([None, g], tx.init([g, g]))[1].base_optimizer_state.trace
    assert jnp.array_equal(alone[1], both[1])  # a gradient that is missing changes no place


def test_a_random_projection_keeps_lengths_on_average():
    tx = gradtx.scale_by_apollo(256, base_optimizer=gradtx.trace(0.0), side="rows")
    r = projection_of(tx, 0, (2000, 300))  # columns of the identity, of length 1, in 256 dimensions
    assert abs(float(jnp.mean(jnp.sum(r**2, 0))) - 1) < 0.02  # of 300 x 256 squares: 2 / 277 would be two deviations


def test_a_projection_may_be_an_initializer():
    tx = gradtx.scale_by_apollo(
        2, base_optimizer=gradtx.trace(0.0), side="rows", projection=jax.nn.initializers.orthogonal()
    )
    r = projection_of(tx, 0, (6, 6))
    np.testing.assert_allclose(r @ r.T, np.eye(2), atol=1e-5)  # float32
    wrong = gradtx.scale_by_apollo(2, projection=lambda key, shape, dtype: jnp.zeros((2, 2), dtype))
    with pytest.raises(
        ValueError, match=r"`scale_by_apollo`: projection made the shape \(2, 2\) for 'w', and not \(3, 2\)"
    ):
        wrong.update({"w": jnp.ones((4, 3))}, wrong.init({"w": jnp.ones((4, 3))}))


def test_gradients_of_zero_do_not_move_nor_limit_what_comes():
    tx = gradtx.scale_by_apollo(1)
    p = jnp.zeros((3, 3))
    state = tx.init(p)
    for g in (p, jnp.eye(3), p, 1e-3 * jnp.eye(3)):
        u, state = tx.update(g, state)
        assert jnp.all(jnp.isfinite(u)) and bool(jnp.any(u)) == bool(jnp.any(g))


def test_a_norm_grows_by_a_hundredth():
    tx = gradtx.scale_by_apollo(2, base_optimizer=gradtx.scale_by_sign())
    g = jnp.ones((4, 3))
    u, state = tx.update(g, tx.init(g))
    v, _ = tx.update(g.at[0].set(100.0), state)
    assert jnp.linalg.norm(v) <= 1.0101 * jnp.linalg.norm(u)


def test_on_a_mesh_whose_types_tell_the_sharding_steps_are_the_same():
    mesh, rng = jax.make_mesh((4, 2), ("a", "b")), np.random.default_rng(0)
    shapes = {"tall": (16, 8), "wide": (4, 8), "stack": (2, 8, 16), "merged": (2, 8, 16), "bias": (4,)}
    specs = {"tall": ("a", "b"), "wide": ("b", "a"), "stack": ("b", "a"), "merged": ("b", "a"), "bias": ("a",)}
    place = lambda tree: {k: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs[k]))) for k, x in tree.items()}
    draw = lambda: {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in shapes.items()}
    numbers = {"tall": GaLoreDimensionNumbers(), "wide": GaLoreDimensionNumbers(), "bias": None}
    numbers |= {"stack": GaLoreDimensionNumbers(1, 2), "merged": GaLoreDimensionNumbers((0, 1), 2)}
    params, grads = draw(), [draw() for _ in range(3)]

    def run(tx, params, grads):
        step, state = jax.jit(tx.update), tx.init(params)
        for g in grads:
            updates, new = step(g, state, params)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            state = new
        return updates

    for tx in (
        gradtx.apollo(0.1, 3, 2, weight_dimension_numbers=numbers),
        gradtx.fira(0.1, 3, 2, weight_dimension_numbers=numbers, scale_type="tensor"),
        gradtx.scale_by_galore(3, 2, base_optimizer=gradtx.identity(), side="both", weight_dimension_numbers=numbers),
    ):
        expected = run(tx, params, grads)
        with jax.set_mesh(mesh):
            ours = run(tx, place(params), [place(g) for g in grads])
        # float32, and singular vectors of matrices gathered from shards
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, expected)


@pytest.mark.parametrize(
    ("argument", "value"), [("norm_growth", 0.5), ("side", "both"), ("scale_type", "row"), ("scale", -1.0)]
)
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_apollo`: {argument} must .*{value}"):
        gradtx.apollo(0.1, **{argument: value})

"""scale_by_galore, galore: Zhao et al. 2024 (arXiv 2403.03507), Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

import gradtx
from gradtx.contrib import GaLoreDimensionNumbers
from tests.optimizers.low_rank_oracle import low_rank, singular_vectors
from tests.oracle import both_precisions, check, check_same

SHAPES = {"tall": (7, 4), "wide": (3, 6), "square": (4, 4), "bias": (3,), "scale": ()}


def galore(lr, rank, gap, scale=1.0, decay=0.0, side="longer"):
    """Algorithm 1 with Adam and AdamW's decay; no projection of what is no matrix."""
    combine = lambda g, r, n, back, axis, path: scale * back(n)
    return lambda params: low_rank(lr, combine, singular_vectors(rank, gap), side, decay=decay)(params)


# One projection: the signs of singular vectors, which no formula decides, are gone from P P^T.
@both_precisions
@pytest.mark.parametrize("rank", [1, 2, 128])
@pytest.mark.parametrize("options", [{}, {"scale": 0.25, "decay": 0.1, "side": "shorter"}])
def test_the_base_optimizer_works_on_the_projected_gradient(rank, options, precision):
    ours = {"weight_decay" if name == "decay" else name: x for name, x in options.items()}
    tx = gradtx.galore(0.02, rank, 100, **ours)
    # float32: P is off by some roundings over the gap between singular values, about 1/10
    tolerance = 1e-4 if precision == "float32" else 1e-10
    check(tx, galore(0.02, rank, 100, **options), precision, shapes=SHAPES, tolerance=tolerance)


@pytest.mark.parametrize("side", ["rows", "columns", "both"])
def test_the_projection_is_of_the_side_that_is_named(side):
    # of both sides the first R is diagonal: the rounding beside it, 1e-16, is divided by Adam's eps, 1e-8
    tolerance = 1e-7 if side == "both" else 1e-10
    check(gradtx.galore(0.02, 2, side=side), galore(0.02, 2, 200, side=side), shapes=SHAPES, tolerance=tolerance)


def test_both_sides_have_a_pair_of_projectors():
    state = gradtx.scale_by_galore(2, side="both").init({"w": jnp.zeros((6, 4)), "b": jnp.zeros(3)})
    assert jax.tree.map(jnp.shape, state.projector) == {"w": ((6, 2), (4, 2)), "b": None}
    assert state.base_optimizer_state.mu["w"].shape == (2, 2)


def test_a_random_projection_is_drawn_anew_and_not_stored():
    tx = gradtx.scale_by_galore(2, 3, base_optimizer=gradtx.identity(), projection="random")
    g = jnp.eye(5, 4)
    state, seen = tx.init(g), []
    for _ in range(6):
        updates, state = tx.update(g, state)
        seen.append(updates)
        assert state.projector is None
    same = [bool(jnp.array_equal(a, seen[0])) for a in seen]
    assert same == [True] * 3 + [False] * 3
    assert jnp.linalg.matrix_rank(seen[0]) == 2


def test_a_new_projection_every_so_many_updates():
    """With a base optimizer without memory the signs do not matter: u = P P^T g, by the P of the last refresh."""
    tx = gradtx.scale_by_galore(2, 3, base_optimizer=gradtx.identity())
    p = jnp.zeros((6, 4))
    state = tx.init(p)
    for t in range(10):
        g = np.random.default_rng(t).normal(size=(6, 4))
        if t % 3 == 0:
            u = np.linalg.svd(g)[0][:, :2]
        updates, state = tx.update(jnp.asarray(g, jnp.float32), state)
        np.testing.assert_allclose(updates, u @ u.T @ g, atol=1e-5)  # float32 over the gap of singular values


def test_signs_change_where_it_does_in_optax():
    """The moments are not turned: after a new projection both go on from the old ones."""
    params = {"tall": jnp.zeros((8, 4)), "wide": jnp.zeros((4, 8)), "bias": jnp.zeros(3)}
    ours, theirs = (lib.contrib.galore(0.1, 2, 2, 0.5, weight_decay=0.01) for lib in (gradtx, optax))
    states = [ours.init(params), theirs.init(params)]
    for t in range(8):
        rng = np.random.default_rng(t)
        g = jax.tree.map(lambda p, rng=rng: jnp.asarray(rng.normal(size=p.shape), jnp.float32), params)
        for i, tx in enumerate((ours, theirs)):
            updates, states[i] = tx.update(g, states[i], params)
            if i == 0:
                first = updates
        # float32: the roundings of 1 - 0.999^t in Optax, 1e-5 of the step, and of singular vectors
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-4 * 0.1), first, updates)


@pytest.mark.parametrize(
    ("shape", "p", "r"),
    [
        ((64, 32), (64, 8), (8, 32)),
        ((32, 64), (64, 8), (32, 8)),
        ((16, 16), (16, 8), (8, 16)),
        ((10, 3), (10, 3), (3, 3)),
    ],
)
def test_the_state_is_small(shape, p, r):
    state = gradtx.scale_by_galore(8).init(jnp.zeros(shape))
    assert state.projector.shape == p
    assert state.base_optimizer_state.mu.shape == state.base_optimizer_state.nu.shape == r
    assert gradtx.scale_by_galore(8).init({"b": jnp.zeros(3)}).projector == {"b": None}


def test_the_projector_is_orthonormal_and_may_be_narrow():
    g = jax.random.normal(jax.random.key(0), (16, 32))
    for dtype, tolerance in (None, 1e-5), ("bfloat16", 2e-2):  # roundings of float32, and of bfloat16
        tx = gradtx.galore(0.1, 4, projector_dtype=dtype)
        p = tx.update(g, tx.init(g), g)[1]["scale_by_galore"].projector
        assert p.dtype == (dtype or "float32")
        np.testing.assert_allclose(p.astype("float32").T @ p.astype("float32"), np.eye(4), atol=tolerance)


def test_a_complex_gradient_is_projected_by_the_conjugate():
    rng = np.random.default_rng(0)
    tx = gradtx.scale_by_galore(2, base_optimizer=gradtx.identity())
    for shape in ((5, 3), (3, 5)):
        g = (rng.normal(size=shape) + 1j * rng.normal(size=shape)).astype("complex64")
        updates, _ = tx.update(jnp.asarray(g), tx.init(jnp.asarray(g)))
        u, s, vh = np.linalg.svd(g, full_matrices=False)
        np.testing.assert_allclose(updates, u[:, :2] * s[:2] @ vh[:2], atol=1e-5)  # the best of rank 2; float32


def test_matrices_are_what_the_dimension_numbers_say():
    params = {"attn": jnp.ones((6, 2, 4)), "mlp": jnp.ones((6, 5)), "bias": jnp.ones(3)}
    numbers = {"attn": GaLoreDimensionNumbers(0, (1, 2)), "mlp": None, "bias": None}
    state = gradtx.scale_by_galore(2, weight_dimension_numbers=numbers).init(params)
    assert jax.tree.map(jnp.shape, state.projector) == {"attn": (8, 2), "mlp": None, "bias": None}
    by_function = gradtx.scale_by_galore(2, weight_dimension_numbers=lambda p: numbers).init(params)
    assert jax.tree.structure(by_function) == jax.tree.structure(state)
    every = gradtx.scale_by_galore(2, weight_dimension_numbers=GaLoreDimensionNumbers(0, -1))
    assert jax.tree.map(jnp.shape, every.init(params).projector) == {"attn": (2, 6, 2), "mlp": (6, 2), "bias": None}
    assert eval(repr(every), {**vars(gradtx), "scale_by_galore": gradtx.scale_by_galore,
                              "scale_by_adam": gradtx.scale_by_adam,
                              "GaLoreDimensionNumbers": GaLoreDimensionNumbers}) == every  # fmt: skip
    with pytest.raises(ValueError, match="the parameter 'bias' is no matrix"):
        gradtx.scale_by_galore(weight_dimension_numbers=dict.fromkeys(params, GaLoreDimensionNumbers())).init(params)


def test_a_stack_is_its_matrices():
    """Layers that a scan holds in one array have the updates that they have apart."""
    numbers = GaLoreDimensionNumbers(-2, -1)
    tx = gradtx.scale_by_galore(2, 2, weight_dimension_numbers=numbers)
    stack, apart = jnp.zeros((3, 5, 4)), [jnp.zeros((5, 4))] * 3
    states = tx.init(stack), tx.init(apart)
    for t in range(4):
        g = jax.random.normal(jax.random.key(t), stack.shape)
        together, first = tx.update(g, states[0])
        each, second = tx.update(list(g), states[1])
        states = first, second
        np.testing.assert_allclose(together, jnp.stack(each), atol=1e-5)  # float32


def test_another_base_optimizer_has_its_time_and_the_extra_arguments():
    seen = []

    def update(updates, state, params=None, *, value):
        seen.append((value, params))
        return updates, state

    spy = gradtx.GradientTransformation(lambda params: (), update)
    base = gradtx.chain(spy, gradtx.trace(lambda t: 0.5))
    tx = gradtx.scale_by_galore(2, base_optimizer=base)
    p = jnp.ones((4, 3))
    tx.update(p, tx.init(p), p, value=3.0, grad=p, value_fn=jnp.sum)
    assert seen == [(3.0, None)]
    alone = gradtx.scale_by_galore(2, base_optimizer=gradtx.trace(lambda t: 0.5))  # keeps no time of its own
    jax.jit(alone.update)(p, alone.init(p), p)
    with pytest.raises(ValueError, match="reads the parameters"):
        with_decay = gradtx.scale_by_galore(2, base_optimizer=gradtx.adamw(0.1))
        with_decay.update(p, with_decay.init(p), p)


def test_of_full_rank_a_linear_base_optimizer_sees_no_difference():
    base = gradtx.trace(0.9)
    tx = gradtx.scale_by_galore(128, 100, base_optimizer=base)
    check_same(tx, base, shapes={"square": (4, 4), "bias": (3,)}, tolerance=1e-11)  # P P^T = 1, by a decomposition


def test_derivatives_take_the_subspace_as_given():
    def after(scale):
        tx, p = gradtx.galore(0.1, 2, 1, scale), jnp.eye(4)
        state = tx.init(p)
        for _ in range(3):
            updates, state = tx.update(p, state, p)  # equal singular values
            p = gradtx.apply_updates(p, updates)
        return jnp.sum(p)

    assert jnp.isfinite(jax.grad(after)(0.5))


def test_on_a_mesh_whose_types_tell_the_sharding_moments_stay_sharded_and_steps_the_same():
    mesh, rng = jax.make_mesh((4, 2), ("a", "b")), np.random.default_rng(0)
    shapes = {"tall": (16, 8), "wide": (4, 8), "stack": (2, 8, 16), "merged": (2, 8, 16), "bias": (4,)}
    specs = {"tall": ("a", "b"), "wide": ("b", "a"), "stack": ("b", "a"), "bias": ("a",)}
    specs["merged"] = specs["stack"]
    place = lambda tree: {
        name: jax.device_put(x, NamedSharding(mesh, PartitionSpec(*specs[name]))) for name, x in tree.items()
    }
    draw = lambda: {name: np.asarray(rng.normal(size=shape), np.float32) for name, shape in shapes.items()}
    numbers = {"tall": GaLoreDimensionNumbers(), "wide": GaLoreDimensionNumbers(), "bias": None}
    numbers |= {"stack": GaLoreDimensionNumbers(1, 2), "merged": GaLoreDimensionNumbers((0, 1), 2)}
    tx = gradtx.galore(0.1, 3, 2, weight_dimension_numbers=numbers)
    params, grads = draw(), [draw() for _ in range(3)]

    def run(params, grads):
        step, state = jax.jit(tx.update), tx.init(params)
        for g in grads:
            updates, new = step(g, state, params)
            assert jax.tree.map(jax.typeof, new) == jax.tree.map(jax.typeof, state)
            state = new
        return updates

    expected = run(params, grads)
    with jax.set_mesh(mesh):
        ours = run(place(params), [place(g) for g in grads])
    # float32, and singular vectors of matrices gathered from shards
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), ours, expected)


def test_bad_numbers_are_errors():
    for rank in (0, -1, 1.5):
        with pytest.raises(ValueError, match="`scale_by_galore`: rank must"):
            gradtx.galore(0.1, rank)
    with pytest.raises(ValueError, match="`scale_by_galore`: update_proj_gap must"):
        gradtx.galore(0.1, update_proj_gap=0)
    with pytest.raises(TypeError, match="base_optimizer must be a gradient transformation"):
        gradtx.galore(0.1, base_optimizer="adam")

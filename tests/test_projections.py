"""Projections: the conditions that make a point the nearest one, in float64; Optax's numbers; trees, dtypes, edges."""

import inspect
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gradtx import projections

from .linalg.test_simplex import by_sorting

NAMES = [name for name in dir(projections) if name.startswith("projection_")]
ROUNDING = 1e-12  # float64, sums of ten numbers of size 1 to 10
RNG = np.random.default_rng(0)


def trees(count=6, size=2.0):
    """Trees of two leaves, exact in float32."""
    draw = lambda *shape: (RNG.normal(size=shape) * size).astype(np.float32).astype(float)
    return [{"a": draw(3, 2), "b": (draw(4), None)} for _ in range(count)]


def joined(tree):
    return np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])


def project(name, tree, *args, **kwargs):
    """In float64, as one vector."""
    with jax.enable_x64(True):
        tree, args = jax.tree.map(jnp.asarray, (tree, args))
        return joined(getattr(projections, name)(tree, *args, **kwargs))


def sizes(x):
    """Scales within which x lies, and in which it does not."""
    return [0.0, 0.1, 1.0, 5.0, 1.5 * np.sum(np.abs(x))]


def test_a_box_clips():
    for tree in trees():
        x = joined(tree)
        np.testing.assert_array_equal(project("projection_non_negative", tree), np.maximum(x, 0))
        np.testing.assert_array_equal(project("projection_box", tree, -0.5, 1.5), np.minimum(np.maximum(x, -0.5), 1.5))
        np.testing.assert_array_equal(project("projection_hypercube", tree, 2.0), np.minimum(np.maximum(x, 0), 2))
        np.testing.assert_array_equal(project("projection_hypercube", tree), np.minimum(np.maximum(x, 0), 1))
        np.testing.assert_array_equal(project("projection_linf_ball", tree, 0.7), np.clip(x, -0.7, 0.7))


def test_bounds_are_numbers_or_trees_like_the_tree_or_its_upper_part():
    tree = trees()[0]
    upper = {"a": np.full((3, 2), 0.5), "b": (np.array([0.0, 1, 2, 3]), None)}
    want = np.minimum(np.maximum(joined(tree), -1), joined(upper))
    np.testing.assert_array_equal(project("projection_box", tree, -1.0, upper), want)
    by_part = joined({"a": np.full((3, 2), 0.5), "b": (np.full(4, 2.0), None)})
    found = project("projection_hypercube", tree, {"a": 0.5, "b": 2.0})
    np.testing.assert_array_equal(found, np.minimum(np.maximum(joined(tree), 0), by_part))


def test_on_a_simplex_what_is_taken_away_is_equal_where_something_is_left_and_less_elsewhere():
    for tree in trees():
        x = joined(tree)
        for scale in sizes(x):
            p = project("projection_simplex", tree, scale)
            np.testing.assert_allclose(p.sum(), scale, rtol=ROUNDING)
            assert np.all(p >= 0)
            tau = np.max(x - p)
            np.testing.assert_allclose((x - p)[p > 0], tau, rtol=ROUNDING, atol=ROUNDING)


def test_in_an_l1_ball_signs_stay_and_sizes_lose_the_same():
    for tree in trees():
        x = joined(tree)
        for scale in sizes(x):
            p = project("projection_l1_ball", tree, scale)
            if np.sum(np.abs(x)) <= scale:
                np.testing.assert_array_equal(p, x)
                continue
            np.testing.assert_allclose(np.sum(np.abs(p)), scale, rtol=ROUNDING, atol=ROUNDING)
            assert np.all(p * x >= 0)
            lost = np.abs(x - p)
            np.testing.assert_allclose(lost[p != 0], np.max(lost), rtol=ROUNDING, atol=ROUNDING)


@pytest.mark.parametrize("scale", [0.3, 1.0, 20.0])
def test_on_an_l1_sphere_it_is_the_nearest_point_of_all_faces(scale):
    """One face for each choice of signs; also from within, where the nearest face is not that of the signs of 0."""
    for x in [*RNG.normal(size=(4, 5)), np.array([0.0, 0.1, 0.0, -0.2, 0.0])]:
        faces = [signs * by_sorting(signs * x, scale) for signs in itertools.product([-1, 1], repeat=5)]
        nearest = min(np.sum((x - face) ** 2) for face in faces)
        p = project("projection_l1_sphere", x, scale)
        np.testing.assert_allclose(np.sum(np.abs(p)), scale, rtol=ROUNDING)
        np.testing.assert_allclose(np.sum((x - p) ** 2), nearest, rtol=ROUNDING, atol=1e-30)


def test_on_an_l2_sphere_and_in_its_ball_it_is_a_multiple():
    for tree in trees():
        x = joined(tree)
        norm = np.linalg.norm(x)
        for scale in sizes(x):
            np.testing.assert_allclose(project("projection_l2_sphere", tree, scale), x * scale / norm, rtol=ROUNDING)
            ball = project("projection_l2_ball", tree, scale)
            if norm <= scale:
                np.testing.assert_array_equal(ball, x)
            else:
                np.testing.assert_allclose(ball, x * scale / norm, rtol=ROUNDING)


def test_what_is_taken_away_is_normal_to_vectors_hyperplanes_and_halfspaces():
    for x_tree, a_tree in itertools.pairwise(trees()):
        x, a = joined(x_tree), joined(a_tree)
        p = project("projection_vector", x_tree, a_tree)
        np.testing.assert_allclose((x - p) @ a, 0, atol=1e-10)  # sums of ten products of size 10
        np.testing.assert_allclose(p * (a @ a), (x @ a) * a, rtol=1e-10, atol=1e-10)
        for b in (-3.0, 0.0, x @ a - 1, x @ a + 1):
            p = project("projection_hyperplane", x_tree, a_tree, b)
            np.testing.assert_allclose(p @ a, b, atol=1e-10)
            np.testing.assert_allclose((x - p) * (a @ a), ((x - p) @ a) * a, atol=1e-9)  # x - p is a multiple of a
            half = project("projection_halfspace", x_tree, a_tree, b)
            np.testing.assert_allclose(half, x if x @ a <= b else p, rtol=ROUNDING, atol=ROUNDING)


def normal(seed, like):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.normal(size=x.shape), x.dtype), like)


def arguments(name, tree):
    if name == "projection_box":
        return (jax.tree.map(lambda x: x - abs(x) / 2, normal(1, tree)), jax.tree.map(abs, normal(2, tree)))
    if name in ("projection_hyperplane", "projection_halfspace"):
        return (normal(1, tree), -1.5)
    return {"projection_vector": (normal(1, tree),), "projection_non_negative": ()}.get(name, (1.5,))


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("name", NAMES)
def test_values_and_slopes_are_optaxs(name, precision):
    with jax.enable_x64(precision == "float64"):
        tree = jax.tree.map(lambda x: jnp.asarray(x, precision), trees()[0])
        tree = tree["a"] if name == "projection_hypercube" else tree  # Optax's takes one array, not two
        args = arguments(name, tree)

        def run(lib):
            fn = lambda tree, args: getattr(lib, name)(tree, *args)
            weighted = lambda tree, args: sum(jnp.sum(jnp.sin(3 * x)) for x in jax.tree.leaves(fn(tree, args)))
            numbers = [x for x in args if isinstance(x, float)]  # the slopes by scale and b
            by = lambda tree, *numbers: weighted(tree, (*args[: len(args) - len(numbers)], *numbers))
            return fn(tree, args), jax.grad(by, tuple(range(1 + len(numbers))))(tree, *numbers)

        found, wanted = jax.jit(lambda: (run(projections), run(optax.projections)))()
        rtol, atol = (1e-11, 1e-13) if precision == "float64" else (1e-5, 1e-5)  # ten numbers of size 1 are added
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), found, wanted)
        assert jax.tree.map(lambda x: x.dtype, found[0]) == jax.tree.map(lambda x: x.dtype, tree)


@pytest.mark.parametrize("name", NAMES)
def test_a_second_projection_changes_nothing(name):
    with jax.enable_x64(True):
        tree = jax.tree.map(jnp.asarray, trees()[1])
        args = arguments(name, tree)
        fn = jax.jit(lambda tree: getattr(projections, name)(tree, *args))
        once = fn(tree)
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-13), fn(once), once)


@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_optaxs(name):
    shown = lambda fn: [(p.name, p.kind, p.default) for p in inspect.signature(fn).parameters.values()]
    assert shown(getattr(projections, name)) == shown(getattr(optax.projections, name))


def test_no_name_of_optaxs_is_missing():
    assert {name for name in dir(optax.projections) if not name.startswith("_")} == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_narrow_leaves_are_computed_together_in_float32_and_keep_their_dtypes(name):
    wide = {"a": jnp.asarray(trees()[0]["a"], jnp.bfloat16).astype(jnp.float32), "b": jnp.float32(0.75)}
    narrow = {"a": wide["a"].astype(jnp.bfloat16), "b": wide["b"]}
    args = arguments(name, wide)
    found, want = (getattr(projections, name)(tree, *args) for tree in (narrow, wide))
    assert found["a"].dtype == jnp.bfloat16 and found["b"].dtype == jnp.float32
    np.testing.assert_allclose(found["b"], want["b"], rtol=1e-6)  # float32
    np.testing.assert_allclose(found["a"].astype(jnp.float32), want["a"], rtol=2**-8, atol=1e-7)  # one rounding


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tree", [{}, {"a": jnp.zeros((0, 2))}, [None]], ids=["none", "empty", "None"])
def test_nothing_stays_nothing(name, tree):
    args = (tree, *arguments(name, tree)[1:]) if "vector" in name or "plane" in name or "space" in name else (1.0,)
    args = {"projection_box": (0.0, 1.0), "projection_non_negative": ()}.get(name, args)
    found = getattr(projections, name)(tree, *args)
    assert jax.tree.map(jnp.shape, found) == jax.tree.map(jnp.shape, tree)


EDGES = [
    ("projection_l2_sphere", [0.0, 0.0, 0.0, 0.0], (2.0,), [1.0, 1, 1, 1]),
    ("projection_l2_ball", [0.0, 0.0], (1.0,), [0.0, 0]),
    ("projection_l2_ball", [0.0, 0.0], (0.0,), [0.0, 0]),
    ("projection_l2_ball", [3.0, 4.0], (0.0,), [0.0, 0]),
    ("projection_l2_ball", [3.0, 4.0], (5.0,), [3.0, 4]),
    ("projection_l2_ball", [3.0, 4.0], (np.inf,), [3.0, 4]),
    ("projection_l1_sphere", [0.0, 0.0], (1.0,), [0.5, 0.5]),
    ("projection_l1_ball", [0.0, 0.0], (0.0,), [0.0, 0]),
    ("projection_l1_ball", [3.0, -4.0], (0.0,), [0.0, 0]),
    ("projection_l1_ball", [3.0, -4.0], (np.inf,), [3.0, -4]),
    ("projection_simplex", [0.0, -np.inf, 0.0], (1.0,), [0.5, 0, 0.5]),
    ("projection_simplex", [1e30, 0.0], (1.0,), [1.0, 0]),
    ("projection_simplex", [3.0, 4.0], (0.0,), [0.0, 0]),
    ("projection_vector", [1.0, 2.0], ([0.0, 0.0],), [0.0, 0]),
    ("projection_hyperplane", [1.0, 2.0], ([0.0, 0.0], 1.0), [1.0, 2]),
    ("projection_halfspace", [1.0, 2.0], ([0.0, 0.0], -1.0), [1.0, 2]),
    ("projection_box", [-np.inf, np.inf], (-1.0, 2.0), [-1.0, 2]),
]


@pytest.mark.parametrize(("name", "x", "args", "want"), EDGES)
def test_edges_have_their_values_and_finite_slopes(name, x, args, want):
    args = tuple(jnp.asarray(arg) if isinstance(arg, list) else arg for arg in args)
    fn = lambda x: (jnp.sum(getattr(projections, name)(x, *args)), getattr(projections, name)(x, *args))
    (_, found), slope = jax.jit(jax.value_and_grad(fn, has_aux=True))(jnp.asarray(x))
    np.testing.assert_allclose(found, want, rtol=1e-6)  # float32
    assert jnp.all(jnp.isfinite(slope))


def test_complex_vectors_are_pairs_of_real_ones():
    """Optax conjugates the wrong one of two vectors, and its linf projection takes no complex ones."""
    rng = np.random.default_rng(3)
    x, a = (rng.normal(size=4) + 1j * rng.normal(size=4) for _ in range(2))
    with jax.enable_x64(True):
        p = projections.projection_vector(x, a)
        np.testing.assert_allclose(np.vdot(a, x - p), 0, atol=1e-14)
        p = projections.projection_hyperplane(x, a, 0.5)
        np.testing.assert_allclose(np.vdot(a, p), 0.5, rtol=1e-13)
        p = projections.projection_halfspace(x, a, -2.0)
        pairs = lambda z: np.concatenate([z.real, z.imag])
        real = projections.projection_halfspace(pairs(x), pairs(a), -2.0)
        np.testing.assert_allclose(pairs(p), real, rtol=1e-12)
        np.testing.assert_allclose(
            pairs(projections.projection_l2_ball(x, 0.5)), projections.projection_l2_ball(pairs(x), 0.5), rtol=1e-13
        )
        p = projections.projection_l1_ball(x, 1.0)
        np.testing.assert_allclose(np.abs(p), by_sorting(np.abs(x)), rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(p * np.abs(x), np.abs(p) * x, rtol=1e-12, atol=1e-15)  # the angles stay
        p = projections.projection_linf_ball(x, 0.6)
        np.testing.assert_allclose(np.abs(p), np.minimum(np.abs(x), 0.6), rtol=1e-13)


@pytest.mark.parametrize("name", [name for name in NAMES if "ball" in name or "sphere" in name or "simplex" in name])
def test_a_negative_scale_is_an_error(name):
    with pytest.raises(ValueError, match=f"`{name}`: scale must be at least 0, got -1"):
        getattr(projections, name)(jnp.ones(2), -1)


def test_what_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match="`projection_box`: lower must be at most upper, got 1 and 0"):
        projections.projection_box(jnp.ones(2), 1, 0)
    with pytest.raises(ValueError, match="`projection_hypercube`: scale must be at least 0"):
        projections.projection_hypercube(jnp.ones(2), -0.5)
    with pytest.raises(ValueError, match="`projection_vector`: a must have the structure and shapes of x"):
        projections.projection_vector({"a": jnp.ones(2)}, {"a": jnp.ones(3)})
    with pytest.raises(ValueError, match="`projection_halfspace`: a must have the structure"):
        projections.projection_halfspace({"a": jnp.ones(2)}, [jnp.ones(2)], 1.0)
    with pytest.raises(TypeError, match="`projection_simplex`: tree must be floating, got a leaf of complex64"):
        projections.projection_simplex(jnp.ones(2, jnp.complex64))


def test_a_scale_may_be_traced_and_mapped():
    x = jnp.asarray(trees()[0]["a"], jnp.float32)
    scales = jnp.array([0.5, 100.0])
    for name in ("projection_l1_ball", "projection_l2_ball", "projection_simplex", "projection_linf_ball"):
        fn = getattr(projections, name)
        found = jax.jit(jax.vmap(lambda s, fn=fn: fn({"a": x}, s)["a"]))(scales)
        np.testing.assert_allclose(found[0], fn(x, 0.5), rtol=1e-5, atol=1e-6)  # float32
        np.testing.assert_allclose(found[1], fn(x, 100.0), rtol=1e-5, atol=1e-5)

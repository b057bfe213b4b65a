"""dion2, nordion2, scale_by_dion2: Ahn et al. 2025."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, check_same

SHAPES = {"dense": {"kernel": (4, 3), "wide": (3, 6), "same": (5, 5)}, "stack": (2, 4, 3)}
LAYERS = {"dense": gradtx.MuonDimensionNumbers(0, 1), "stack": gradtx.MuonDimensionNumbers(1, 2)}


def exact(x):
    """The orthogonal matrices, by a decomposition."""
    u, _, vh = jnp.linalg.svd(x, full_matrices=False)
    return u @ vh


def polar(x):
    u, _, vh = np.linalg.svd(x, full_matrices=False)
    return u @ vh


def rule(lr=0.02, fraction=0.25, beta=0.95, b2=None, decay=0.0, outputs=False):
    """For matrices (inputs, outputs) and stacks of them."""

    def one(w):
        m, of_outputs = np.zeros_like(w), outputs or w.shape[0] >= w.shape[1]
        nu = np.zeros(w.shape[1] if of_outputs else w.shape[0])

        def step(g, w):
            nonlocal m
            m = m + g
            rows = m.T if of_outputs else m
            sizes = np.sum(np.abs(rows), axis=1)
            places = np.argsort(-sizes, kind="stable")[: math.ceil(fraction * len(rows))]
            u = np.zeros_like(rows)
            direction = polar(rows[places])
            if b2 is not None:
                nu[places] = b2 * nu[places] + (1 - b2) * np.mean(np.abs(direction) ** 2, axis=1)
                scaled = direction / (np.sqrt(nu[places]) + 1e-8)[:, None]
                direction = scaled * np.linalg.norm(direction) / np.linalg.norm(scaled)
            u[places] = direction
            rows = rows.copy()
            rows[places] *= beta
            m, u = (rows.T, u.T) if of_outputs else (rows, u)
            return -lr * (np.sqrt(w.shape[1] / w.shape[0]) * u + decay * w)

        return step

    def start(params):
        each = lambda x: x if x.ndim == 3 else x[None]
        steps = {path: [one(x) for x in each(w)] for path, w in params.items()}

        def step(grads, params, t):
            updates = {}
            for path, g in grads.items():
                found = [f(*x) for f, *x in zip(steps[path], each(g), each(params[path]), strict=True)]
                updates[path] = np.stack(found).reshape(g.shape)
            return updates

        return step

    return start


def build(lr=0.02, fraction=0.25, beta=0.95, b2=None, decay=0.0, outputs=False):
    return gradtx.dion2(
        lr,
        fraction,
        beta,
        b2,
        decay,
        select="outputs" if outputs else "shorter",
        orthogonalizer=exact,
        weight_dimension_numbers=LAYERS,
    )


# in float32 a decomposition is good to some hundred roundings
LOOSE = {"float64": 1e-10, "float32": 2e-4}
SETTINGS = [
    {},
    {"fraction": 0.6, "decay": 0.1},
    {"fraction": 1.0, "beta": 0.5, "outputs": True},
    {"b2": 0.9},
    {"fraction": 0.5, "b2": 0.95, "outputs": True},
]


@pytest.mark.parametrize("setting", SETTINGS)
def test_twelve_steps_are_the_papers(setting):
    check(build(**setting), rule(**setting), shapes=SHAPES)


@both_precisions
def test_in_both_precisions(precision):
    check(build(fraction=0.5, b2=0.9), rule(fraction=0.5, b2=0.9), precision, shapes=SHAPES, tolerance=LOOSE[precision])


def test_complex_matrices_are_made_unitary():
    leaves = ("dense/kernel", "dense/same")
    check(build(fraction=0.5, b2=0.9), rule(fraction=0.5, b2=0.9), shapes=SHAPES, complex_leaves=leaves)


def test_of_all_rows_it_is_muons_step():
    """M = beta M + g: heavy-ball momentum."""
    orthogonalizer = gradtx.newton_schulz("polar_express", eps=1e-8)
    muons = gradtx.chain(
        gradtx.trace(0.9), gradtx.orthogonalize(orthogonalizer, LAYERS), gradtx.scale_by_learning_rate(0.02)
    )
    link = gradtx.scale_by_dion2(1.0, 0.9, weight_dimension_numbers=LAYERS)
    check_same(gradtx.chain(link, gradtx.scale_by_learning_rate(0.02)), muons, shapes=SHAPES, tolerance=1e-11)


def test_nordion2_is_dion2_of_outputs():
    assert gradtx.nordion2(0.1) == gradtx.dion2(0.1, b2=0.95, select="outputs")
    assert gradtx.nordion2(0.1, b2=0.5, select="shorter", weight_decay=0.0) == gradtx.dion2(
        0.1, b2=0.5, weight_decay=0.0
    )


def step(tx, g, dtype=jnp.float64, state=None):
    with jax.enable_x64(True):
        g = jnp.asarray(g, dtype)
        return jax.tree.map(np.asarray, tx.update(g, tx.init(g) if state is None else jax.tree.map(jnp.asarray, state)))


def test_rows_that_wait_keep_all_of_their_gradients():
    tx = gradtx.scale_by_dion2(0.3, 0.5, orthogonalizer=exact)
    g = np.outer([1.0, 4.0, 2.0], [1.0, -1.0, 0.5, 2.0])  # the inputs are the shorter side
    u, state = step(tx, g)
    np.testing.assert_array_equal(u[[0, 2]], 0)
    np.testing.assert_allclose(np.linalg.norm(u[1]), 1.0)
    np.testing.assert_allclose(state.mu, g * np.array([[1.0], [0.5], [1.0]]))
    u, state = step(tx, g, state=state)  # 2, 6, 4
    np.testing.assert_allclose(state.mu, g * np.array([[2.0], [0.75], [2.0]]))
    assert np.all(u[[0, 2]] == 0)
    rounds = [step(tx, g, state=state)]
    while not rounds[-1][0][0].any():
        rounds.append(step(tx, g, state=rounds[-1][1]))
    assert len(rounds) < 20  # the smallest row has its turn


def test_a_permutation_of_rows_permutes_the_step():
    g = np.random.default_rng(0).normal(size=(4, 6))
    order = np.array([2, 0, 3, 1])
    tx = gradtx.scale_by_dion2(0.5, b2=0.9)
    (u, state), (v, permuted) = step(tx, g), step(tx, g[order])
    np.testing.assert_allclose(v, u[order], atol=1e-12)
    np.testing.assert_allclose(permuted.nu, state.nu[order], atol=1e-12)


def test_a_direction_does_not_depend_on_the_gradients_scale():
    tx = gradtx.scale_by_dion2(0.5, orthogonalizer=exact, weight_dimension_numbers=LAYERS)
    check_same(tx, gradtx.chain(gradtx.scale(1024.0), tx), shapes=SHAPES, tolerance=1e-10)


def test_no_finite_gradient_makes_nan():
    of_rank_1 = np.outer([1.0, 2.0, 3.0], [1.0, -1.0])
    for tx in (gradtx.scale_by_dion2(0.7), gradtx.scale_by_dion2(0.7, b2=0.9, select="outputs")):
        for g in (of_rank_1, 1e30 * of_rank_1, 1e-30 * of_rank_1, np.zeros((3, 2)), np.ones((1, 3)), np.ones((1, 1))):
            u, state = step(tx, g, jnp.float32)
            assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((u, state)))
        np.testing.assert_array_equal(step(tx, np.zeros((3, 2)))[0], 0)
        for shape in ((0, 3), (3, 0)):
            assert step(tx, np.zeros(shape))[0].shape == shape


def test_one_nan_decides_for_its_own_leaf():
    good = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    grads = {"good": good, "bad": good.at[0, 0].set(jnp.nan)}
    tx = gradtx.scale_by_dion2(0.5, b2=0.9)
    state = tx.init(grads)
    updates, _ = tx.update(grads, state)
    alone, _ = tx.update({"good": good, "bad": good}, state)
    assert np.isnan(updates["bad"]).any()
    np.testing.assert_allclose(updates["good"], alone["good"], rtol=1e-6)


def test_what_is_kept_of_each_matrix():
    params = {"a": jnp.ones((3, 4), jnp.bfloat16), "b": jnp.ones((2, 4, 3))}
    numbers = gradtx.MuonDimensionNumbers(-2, -1)
    state = gradtx.scale_by_dion2(b2=0.9, weight_dimension_numbers=numbers, mu_dtype="bfloat16").init(params)
    assert state.nu is not None and state.mu["b"].dtype == jnp.bfloat16 and state.nu["a"].dtype == jnp.float32
    assert state.nu["a"].shape == (3,) and state.nu["b"].shape == (2, 3)
    assert gradtx.scale_by_dion2(weight_dimension_numbers=numbers).init(params).nu is None


def test_products_in_bfloat16_are_as_orthogonal_as_they_need_be():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(32, 64)), jnp.float32)
    tx = gradtx.scale_by_dion2(0.5, orthogonalizer=gradtx.newton_schulz("polar_express", dtype="bfloat16"))
    updates, _ = tx.update(g, tx.init(g))
    s = np.linalg.svd(updates, compute_uv=False)[:16]
    assert updates.dtype == jnp.float32 and 0.8 < s.min() and s.max() < 1.2


def test_what_is_no_matrix_is_adams():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.arange(3.0)}
    tx = gradtx.nordion2(0.1, weight_decay=0.2)
    updates, _ = tx.update(params, tx.init(params), params)
    adam = gradtx.adamw(0.1, 0.9, 0.95, weight_decay=0.2)
    wanted, _ = adam.update({"bias": params["bias"]}, adam.init({"bias": params["bias"]}), {"bias": params["bias"]})
    np.testing.assert_array_equal(updates["bias"], wanted["bias"])


@pytest.mark.parametrize("arguments", [{"fraction": 0.0}, {"beta": 1.1}, {"b2": 1.0}, {"select": "inputs"}])
@pytest.mark.parametrize("make", [gradtx.scale_by_dion2, lambda **kw: gradtx.dion2(1e-3, **kw)])
def test_an_argument_out_of_range_is_an_error_that_names_it(make, arguments):
    with pytest.raises(ValueError, match=f"`scale_by_dion2`.*{next(iter(arguments))}"):
        make(**arguments)


def test_what_cannot_be_a_matrix_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_dion2`.*'b'.*\(3,\)"):
        gradtx.scale_by_dion2().init({"w": jnp.ones((3, 2)), "b": jnp.ones(3)})

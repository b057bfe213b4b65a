"""dion, scale_by_dion: Ahn et al. 2025."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check, check_same

SHAPES = {"dense": {"kernel": (4, 3), "wide": (3, 6), "same": (5, 5)}, "stack": (2, 4, 3)}
LAYERS = {"dense": gradtx.MuonDimensionNumbers(0, 1), "stack": gradtx.MuonDimensionNumbers(1, 2)}


def first_factors(tx, params):
    """Its first Q, by path."""
    tree = {"dense": {name: params[f"dense/{name}"] for name in SHAPES["dense"]}, "stack": params["stack"]}
    with jax.enable_x64(True):
        q = tx.init(jax.tree.map(jnp.asarray, tree)).q
    return {f"dense/{name}": np.asarray(q["dense"][name]) for name in SHAPES["dense"]} | {
        "stack": np.asarray(q["stack"])
    }


def rule(tx, lr=0.02, beta=0.95, eps=1e-8, decay=0.0, iters=1, longer=True):
    """For matrices (inputs, outputs) and stacks of them, from the first Q of a transformation."""

    def one(w, q):
        m = np.zeros_like(w)
        transposed = not longer or w.shape[0] <= w.shape[1]  # P is of the outputs

        def step(g, w):
            nonlocal m, q
            m = m + g
            b = m.conj().T if transposed else m
            p = r = q
            for _ in range(iters):
                p = np.linalg.qr(b @ r)[0]
                r = b.conj().T @ p
            low = p @ r.conj().T
            q = r / (np.sqrt(np.sum(np.abs(r) ** 2, axis=0, keepdims=True)) + eps)
            u = p @ q.conj().T
            low, u = (low.conj().T, u.conj().T) if transposed else (low, u)
            m = m - (1 - beta) * low
            return -lr * (np.sqrt(w.shape[1] / w.shape[0]) * u + decay * w)

        return step

    def start(params):
        q = first_factors(tx, params)
        steps = {}
        for path, w in params.items():
            steps[path] = [one(x, f) for x, f in zip(w, q[path], strict=True)] if w.ndim == 3 else one(w, q[path])

        def step(grads, params, t):
            updates = {}
            for path, g in grads.items():
                mine = steps[path]
                if g.ndim == 3:
                    updates[path] = np.stack([f(x, w) for f, x, w in zip(mine, g, params[path], strict=True)])
                else:
                    updates[path] = mine(g, params[path])
            return updates

        return step

    return start


def chained(**arguments):
    link = gradtx.scale_by_dion(weight_dimension_numbers=LAYERS, **arguments)
    return link, gradtx.chain(link, gradtx.scale_by_learning_rate(0.02))


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ({"rank": 2}, {}),
        ({"rank": 2, "orthonormal": "outputs"}, {"longer": False}),
        ({"rank_fraction": 0.5, "beta": 0.8, "eps": 1e-3}, {"beta": 0.8, "eps": 1e-3}),
        ({"rank": 1, "power_iters": 3}, {"iters": 3}),
    ],
)
def test_twelve_steps_are_the_papers(arguments, wanted):
    link, tx = chained(**arguments)
    check(tx, rule(link, **wanted), shapes=SHAPES)


def test_in_float32_too():
    link, _ = chained(rank=2)
    shapes = {"dense/kernel": (4, 3), "dense/wide": (3, 6), "dense/same": (5, 5), "stack": (2, 4, 3)}
    params = {name: np.zeros(shape) for name, shape in shapes.items()}
    q = first_factors(link, params)
    drawn = {name: jnp.asarray(x, jnp.float32) for name, x in q.items()}
    grads = {
        name: jnp.asarray(np.random.default_rng(0).normal(size=x.shape), jnp.float32) for name, x in params.items()
    }
    link = gradtx.scale_by_dion(2, weight_dimension_numbers=gradtx.MuonDimensionNumbers(-2, -1))
    single, state = link.update(grads, link.init(grads)._replace(q=drawn))
    with jax.enable_x64(True):
        wide = {name: jnp.asarray(np.asarray(g, np.float64)) for name, g in grads.items()}
        double, wanted = link.update(wide, link.init(wide)._replace(q={n: jnp.asarray(x) for n, x in q.items()}))
    for name in params:
        np.testing.assert_allclose(single[name], double[name], atol=1e-4)  # one division by what may be small
        np.testing.assert_allclose(state.mu[name], wanted.mu[name], atol=1e-5)


def test_complex_matrices_are_made_unitary():
    link, _ = chained(rank=2)
    # the first Q is complex where the matrix is
    params = {f"dense/{name}": np.zeros(shape, complex) for name, shape in SHAPES["dense"].items()}
    assert np.iscomplexobj(first_factors(link, params | {"stack": np.zeros((2, 4, 3))})["dense/kernel"])
    rng = np.random.default_rng(0)
    g = jnp.asarray(rng.normal(size=(5, 4)) + 1j * rng.normal(size=(5, 4)), jnp.complex64)
    full = gradtx.scale_by_dion()
    u, state = full.update(g, full.init(g))
    np.testing.assert_allclose(np.linalg.norm(np.linalg.qr(state.q)[1], axis=0), 1, rtol=1e-4)
    assert np.all(np.isfinite(u)) and np.vdot(u, g).real > 0


def step(tx, g, q=None, dtype=jnp.float64):
    """One update and the state after it."""
    with jax.enable_x64(True):
        g = jnp.asarray(g, dtype)
        state = tx.init(g)
        state = state if q is None else state._replace(q=jnp.asarray(q, dtype))
        return jax.tree.map(np.asarray, tx.update(g, state))


def spread(shape, values, seed=0):
    """A matrix with these singular values."""
    rng = np.random.default_rng(seed)
    u, v = (np.linalg.qr(rng.normal(size=(n, len(values))))[0] for n in shape)
    return u * values @ v.T, u @ v.T


@pytest.mark.parametrize("shape", [(4, 6), (6, 4), (5, 5)])
def test_with_all_directions_and_enough_power_it_is_the_polar_factor(shape):
    values = 3.0 ** -np.arange(min(shape))
    m, polar = spread(shape, values)
    u, _ = step(gradtx.scale_by_dion(power_iters=60, eps=0.0), m)
    np.testing.assert_allclose(u, np.sqrt(shape[1] / shape[0]) * polar, atol=1e-12)


def test_its_directions_come_to_be_the_leading_ones():
    """With a constant gradient and beta 1, M is a multiple of it: power iteration goes on from step to step."""
    g, _ = spread((6, 5), [5.0, 3.0, 0.1, 0.05, 0.01])
    tx = gradtx.scale_by_dion(2, beta=1.0)
    with jax.enable_x64(True):
        state = tx.init(jnp.asarray(g))
        for _ in range(60):
            _, state = tx.update(jnp.asarray(g), state)
        u, _ = tx.update(jnp.asarray(g), state)
    left, _, right = np.linalg.svd(g)
    np.testing.assert_allclose(u, np.sqrt(5 / 6) * left[:, :2] @ right[:2], atol=1e-10)


@pytest.mark.parametrize("orthonormal", ["longer", "outputs"])
def test_rotating_the_gradient_and_q_rotates_the_step(orthonormal):
    rng = np.random.default_rng(0)
    tx = gradtx.scale_by_dion(2, orthonormal=orthonormal)
    for d, e in ((4, 6), (6, 4)):
        g = rng.normal(size=(d, e))
        left, right = (np.linalg.qr(rng.normal(size=(n, n)))[0] for n in (d, e))
        of_inputs = orthonormal == "outputs" or d < e  # Q's side
        q = rng.normal(size=(d if of_inputs else e, 2))
        turned = left @ q if of_inputs else right.T @ q
        u, state = step(tx, g, q)
        u_turned, state_turned = step(tx, left @ g @ right, turned)
        np.testing.assert_allclose(u_turned, left @ u @ right, atol=1e-12)
        np.testing.assert_allclose(state_turned.mu, left @ state.mu @ right, atol=1e-12)


def test_which_side_p_has_is_a_transposition():
    g, q = np.random.default_rng(0).normal(size=(6, 4)), np.random.default_rng(1).normal(size=(4, 2))
    longer, _ = step(gradtx.scale_by_dion(2), g, q)
    outputs, _ = step(gradtx.scale_by_dion(2, orthonormal="outputs"), g.T, q)
    np.testing.assert_allclose(longer * np.sqrt(6 / 4), (outputs * np.sqrt(4 / 6)).T, atol=1e-12)


def test_what_was_not_stepped_along_stays():
    """M - (1 - beta) P P^T M: of rank 1 with beta 0, what is left is orthogonal to P."""
    g = np.random.default_rng(0).normal(size=(6, 4))
    u, state = step(gradtx.scale_by_dion(1, beta=0.0), g)
    np.testing.assert_allclose(u.T @ state.mu, 0, atol=1e-12)
    _, state = step(gradtx.scale_by_dion(beta=0.0), g)
    np.testing.assert_allclose(state.mu, 0, atol=1e-12)


def test_a_direction_does_not_depend_on_the_gradients_scale():
    tx = gradtx.scale_by_dion(2, eps=0.0, weight_dimension_numbers=LAYERS)
    check_same(tx, gradtx.chain(gradtx.scale(1024.0), tx), shapes=SHAPES, tolerance=1e-10)


@pytest.mark.parametrize(
    ("arguments", "rank"),
    [
        ({}, 30),
        ({"rank": 4}, 4),
        ({"rank": 99}, 30),
        ({"rank_fraction": 0.25}, 8),
        ({"rank_fraction": 0.25, "rank_multiple_of": 16}, 16),
        ({"rank_fraction": 0.9, "rank_multiple_of": 16}, 30),
        ({"rank_fraction": 0.25, "rank": 3}, 3),
    ],
)
def test_how_many_directions(arguments, rank):
    params = {"a": jnp.zeros((30, 40)), "b": jnp.zeros((2, 40, 30))}
    numbers = gradtx.MuonDimensionNumbers(-2, -1)
    state = jax.eval_shape(gradtx.scale_by_dion(**arguments, weight_dimension_numbers=numbers).init, params)
    assert state.q["a"].shape == (30, rank) and state.q["b"].shape == (2, 30, rank)


def test_a_matrix_of_low_rank_makes_no_step_of_rounding():
    """Of rank 1, with 3 directions: two have nothing but rounding, which their lengths would make large."""
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.float64, 1e-12)):
        g = np.outer(np.arange(1.0, 7.0), [1.0, -2.0, 3.0, 0.5])
        u, state = step(gradtx.scale_by_dion(3), g, dtype=dtype)
        np.testing.assert_allclose(u, np.sqrt(4 / 6) * g / np.linalg.norm(g), atol=tolerance)
        assert np.all(np.linalg.norm(state.q, axis=0) > 0.5)  # the columns of the others stay


def test_no_finite_gradient_makes_nan():
    of_rank_1 = np.outer([1.0, 2.0, 3.0], [1.0, -1.0])
    for g in (of_rank_1, 1e30 * of_rank_1, 1e-30 * of_rank_1, np.zeros((3, 2)), np.ones((1, 3)), np.ones((1, 1))):
        for eps in (1e-8, 0.0):
            u, state = step(gradtx.scale_by_dion(2, eps=eps), g, dtype=jnp.float32)
            assert all(np.all(np.isfinite(x)) for x in (u, state.mu, state.q))
    huge, _ = step(gradtx.scale_by_dion(2), 1e30 * of_rank_1, dtype=jnp.float32)
    np.testing.assert_allclose(huge, np.sqrt(2 / 3) * of_rank_1 / np.linalg.norm(of_rank_1), atol=1e-5)
    for shape in ((0, 3), (3, 0)):
        assert step(gradtx.scale_by_dion(2), np.zeros(shape))[0].shape == shape


def test_no_gradient_yet_makes_no_step_and_keeps_q():
    tx = gradtx.scale_by_dion(2)
    g = np.random.default_rng(0).normal(size=(4, 3))
    u, state = step(tx, np.zeros((4, 3)))
    np.testing.assert_array_equal(u, 0)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(state.q, tx.init(jnp.zeros((4, 3), jnp.float64)).q)
        later, _ = tx.update(jnp.asarray(g), jax.tree.map(jnp.asarray, state))
    np.testing.assert_allclose(later, step(tx, g)[0])


def test_one_nan_decides_for_its_own_leaf():
    good = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)), jnp.float32)
    grads = {"good": good, "bad": good.at[0, 0].set(jnp.nan)}
    tx = gradtx.scale_by_dion(2)
    state = tx.init(grads)
    updates, _ = tx.update(grads, state)
    alone, _ = tx.update({"good": good, "bad": good}, state)
    assert np.isnan(updates["bad"]).any()
    np.testing.assert_allclose(updates["good"], alone["good"], rtol=1e-6)


def test_products_in_bfloat16_give_nearly_the_same_directions():
    g = jnp.asarray(np.random.default_rng(0).normal(size=(32, 48)), jnp.float32)
    full, narrow = (gradtx.scale_by_dion(4, product_dtype=x) for x in (None, "bfloat16"))
    u, v = (tx.update(g, tx.init(g))[0] for tx in (full, narrow))
    assert v.dtype == jnp.float32
    assert np.vdot(u, v) > 0.99 * np.linalg.norm(u) * np.linalg.norm(v)


def test_what_is_no_matrix_is_adams():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.arange(3.0), "embed": jnp.ones((3, 2))}
    tx = gradtx.dion(0.1, 1, weight_decay=0.2, others_mask="embed")
    updates, state = tx.update(params, tx.init(params), params)
    adam = gradtx.adamw(0.1, 0.9, 0.95, weight_decay=0.2)
    others = {"bias": params["bias"], "embed": params["embed"]}
    wanted, _ = adam.update(others, adam.init(others), others)
    for name, x in wanted.items():
        np.testing.assert_array_equal(updates[name], x)
    assert state.inner_states["matrices"].inner_state["scale_by_dion"].q["bias"] is None
    frozen = gradtx.dion(0.1, others=gradtx.set_to_zero())
    np.testing.assert_array_equal(frozen.update(params, frozen.init(params), params)[0]["bias"], 0)


def test_storage_is_as_chosen():
    params = jnp.ones((4, 3), jnp.bfloat16)
    tx = gradtx.scale_by_dion(2, mu_dtype="bfloat16", q_dtype="float16")
    _, state = tx.update(params, tx.init(params))
    assert state.mu.dtype == jnp.bfloat16 and state.q.dtype == jnp.float16
    assert gradtx.scale_by_dion().init(params).q.dtype == jnp.float32


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"rank": 0}, ValueError),
        ({"rank": 1.5}, ValueError),
        ({"rank_fraction": 0.0}, ValueError),
        ({"rank_fraction": 1.1}, ValueError),
        ({"rank_fraction": lambda t: 0.5}, TypeError),
        ({"rank_multiple_of": 0}, ValueError),
        ({"beta": 1.1}, ValueError),
        ({"eps": -1.0}, ValueError),
        ({"power_iters": 0}, ValueError),
        ({"orthonormal": "inputs"}, ValueError),
        ({"key": "0"}, TypeError),
    ],
)
@pytest.mark.parametrize("build", [gradtx.scale_by_dion, lambda **kw: gradtx.dion(1e-3, **kw)])
def test_an_argument_out_of_range_is_an_error_that_names_it(build, arguments, error):
    with pytest.raises(error, match=f"`scale_by_dion`.*{next(iter(arguments))}"):
        build(**arguments)


def test_what_cannot_be_a_matrix_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`scale_by_dion`.*'b'.*\(3,\)"):
        gradtx.scale_by_dion().init({"w": jnp.ones((3, 2)), "b": jnp.ones(3)})

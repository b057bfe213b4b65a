"""psgd_kron: Li 2015 (arXiv 1512.04202), Li 2024 (arXiv 2402.11858), and Walters' kron_torch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.optimizers.psgd_kron import ANNEALED

from ..oracle import check, data, nested, rms
from . import psgd_oracle as psgd

SHAPES = {"dense": {"kernel": (4, 3), "bias": (3,)}, "scale": (), "conv": (2, 2, 3), "row": (1, 4)}
DRAWS = np.random.default_rng(5)


def probed(tx, shapes=SHAPES, steps=12):
    """The transformation with random numbers that a rule in NumPy can have too."""
    params, _ = data(shapes, steps=1)
    draws = {path: DRAWS.normal(size=(steps, *p.shape)).astype(np.float32) for path, p in params.items()}

    def update(g, state, params):
        count = state["count"] if isinstance(state, dict) else state.count
        probe = jax.tree.map(lambda v: jnp.asarray(v)[count], nested(draws))
        return tx.update(g, state, params, probe=probe)

    return gradtx.GradientTransformation(tx.init, update), draws


def rule_of(draws, leaf):
    """Lifts `leaf(p) -> step(g, p, v, t)` to all leaves."""

    def rule(params):
        steps = {path: leaf(p) for path, p in params.items()}
        return lambda g, p, t: {k: steps[k](g[k], p[k], draws[k][t - 1].astype(float), t) for k in p}

    return rule


def kron(b1=0.9, share=1.0, rate=0.1, scale=1.0, merge=True, into=True, noisy=False, diagonal=None):
    """The formula of a leaf."""

    def leaf(p):
        shape = psgd.shape_of(p, merge)
        chosen = [len(shape) < 2] * len(shape) if diagonal is None else diagonal(shape)
        state: dict = {"mu": np.zeros(shape), "since": 0, "q": psgd.start(shape, scale, chosen)}

        def step(g, p, v, t):
            g, v = g.reshape(shape), v.reshape(shape)
            state["mu"] = b1 * state["mu"] + (1 - b1) * g
            m = state["mu"] / (1 - b1**t)
            x, state["since"] = m, state["since"] + 1
            if state["since"] >= 1 / share:
                seen = m if into else g
                h = seen + np.sqrt(np.finfo(np.float32).eps) * np.mean(np.abs(seen)) * v
                state["q"] = psgd.fit("EQ", state["q"], h, v, rate, 0.0, 1)
                state["since"], x = 0, h if noisy else m
            return psgd.whiten("EQ", state["q"][0], x).reshape(p.shape)

        return step

    return leaf


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_the_formula(precision):
    tx, draws = probed(gradtx.scale_by_psgd_kron(preconditioner_update_probability=1.0))
    # in float32 a rounding is 6e-8, and A and B, of which the difference is taken, are some ten times as large as it
    check(
        tx, rule_of(draws, kron()), precision, shapes=SHAPES, tolerance={"float64": 1e-10, "float32": 1e-4}[precision]
    )


@pytest.mark.parametrize(
    ("arguments", "formula"),
    [
        ({"b1": 0.5, "momentum_into_precond_update": False}, {"b1": 0.5, "into": False}),
        ({"merge_dims": False}, {"merge": False}),
        ({"preconditioner_update_probability": 0.3, "precond_lr": 0.5}, {"share": 0.3, "rate": 0.5}),
        ({"precond_init_scale": 0.3, "noise_in_update": True}, {"scale": 0.3, "noisy": True}),
        ({"memory_save_mode": "all_diag"}, {"diagonal": lambda shape: [True] * len(shape)}),
        ({"memory_save_mode": "one_diag"}, {"diagonal": lambda shape: [n in (1, max(shape)) for n in shape]}),
        ({"max_size_triangular": 3}, {"diagonal": lambda shape: [len(shape) < 2 or n > 3 for n in shape]}),
        ({"min_ndim_triangular": 1}, {"diagonal": lambda shape: [n == 1 for n in shape]}),
    ],
)  # fmt: skip
def test_the_arguments(arguments, formula):
    tx, draws = probed(gradtx.scale_by_psgd_kron(**{"preconditioner_update_probability": 1.0} | arguments))
    check(tx, rule_of(draws, kron(**formula)), shapes=SHAPES)


def test_one_diagonal_only_where_a_side_stands_out():
    tx = gradtx.scale_by_psgd_kron(memory_save_mode="smart_one_diag")
    ranks = lambda shape: [q.ndim for q in tx.init(jnp.ones(shape)).factors]
    assert ranks((4, 4)) == [2, 2] and ranks((4, 6)) == [2, 1] and ranks((6, 4)) == [1, 2]


def test_the_chain_clips_decays_and_scales():
    shapes = {"w": (4, 3)}
    tx = gradtx.psgd_kron(0.1, weight_decay=0.3, clip_rms=0.7, preconditioner_update_probability=1.0)
    tx, draws = probed(tx, shapes)

    def leaf(p):
        inner = kron()(p)

        def step(g, p, v, t):
            u = inner(g, p, v, t)
            return -0.1 * (u * min(1, 0.7 / rms(u)) + 0.3 * p)

        return step

    check(tx, rule_of(draws, leaf), shapes=shapes)


def run(tx, gradients, state=None) -> Any:
    """Updates of a leaf step by step, and the last state."""
    state = tx.init(gradients[0]) if state is None else state
    return jax.lax.scan(lambda state, g: tx.update(g, state)[::-1], state, gradients)[::-1]


def gaussian(key, steps, a, b):
    """Gradients with the covariance A x B."""
    z = jax.random.normal(jax.random.key(key), (steps, len(a), len(b)))
    return jnp.linalg.cholesky(a) @ z @ jnp.linalg.cholesky(b).T


A = jnp.diag(jnp.array([4.0, 1.0, 0.25])) + 0.3
B = jnp.diag(jnp.array([9.0, 1.0, 0.1, 1.0])) + 0.05


def test_gradients_become_white():
    """P (A x B) P tends to I: with a falling rate of fit, to some percent."""
    rate = gradtx.exponential_decay(0.3, 2000, 0.1, end_value=0.01)
    tx = gradtx.chain(gradtx.scale_by_psgd_kron(0.0, 1.0, precond_lr=rate))
    _, state = jax.jit(lambda g: run(tx, g))(gaussian(0, 4000, A, B))
    k, l = (q.T @ q for q in state["scale_by_psgd_kron"].factors)
    values = np.linalg.eigvalsh(np.kron(k @ A @ k, l @ B @ l))
    assert 0.7 < values.min() and values.max() < 1.4, values


def test_the_scale_of_gradients_does_not_matter_after_some_steps():
    tx = gradtx.scale_by_psgd_kron(0.0, 1.0)
    g = gaussian(1, 400, A, B)
    small, large = (jax.jit(lambda g: run(tx, g))(c * g)[0][-50:] for c in (1e-3, 1e3))
    assert abs(rms(np.asarray(small)) / rms(np.asarray(large)) - 1) < 0.05


def test_a_scale_of_gradients_is_one_of_the_start():
    """Q sqrt(c) g / c is Q g / sqrt(c): powers of 4 are exact."""
    g = gaussian(2, 5, A, B)
    first, second = (
        run(gradtx.scale_by_psgd_kron(0.9, 1.0, precond_init_scale=scale), c * g)[0]
        for c, scale in ((1, 1.0), (2**16, 2**-8))
    )
    np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-5)  # float32's rounding, as V is added to A


def test_without_a_fit_it_is_momentum():
    g = gaussian(3, 6, A, B)
    want = run(gradtx.momentum(-1.0, 0.9, form="unbiased"), g)[0]
    np.testing.assert_allclose(run(gradtx.scale_by_psgd_kron(precond_lr=0.0), g)[0], want, rtol=1e-5, atol=1e-6)


def test_factors_are_fitted_each_nth_time_within_a_branch():
    tx = gradtx.scale_by_psgd_kron(preconditioner_update_probability=0.25)
    g, moved = gaussian(4, 8, A, B), []
    state = tx.init(g[0])
    for x in g:
        new = tx.update(x, state)[1]
        moved.append(bool(jnp.any(new.factors[0] != state.factors[0])))
        state = new
    assert moved == [False, False, False, True] * 2
    program = str(jax.make_jaxpr(tx.update)(g[0], state))
    branches = program.split("cond[", 1)
    assert len(branches) == 2 and "triangular_solve" not in branches[0]


def test_a_share_of_zero_never_fits():
    g = gaussian(4, 3, A, B)
    np.testing.assert_array_equal(run(gradtx.scale_by_psgd_kron(0.9, 0.0), g)[1].factors[0], jnp.eye(3))


def test_by_default_fits_become_rare_as_the_source_has_it():
    want = lambda n: np.clip(np.exp(-0.001 * (n - 500)), 0.03, 1.0)
    steps = np.array([0, 499, 500, 501, 2000, 3999, 5000, 10**6])
    np.testing.assert_allclose(
        [ANNEALED(jnp.int32(n)) for n in steps], want(steps), rtol=1e-3
    )  # n log(rate) in float32


def test_stacked_matrices_are_as_each_alone():
    tx = gradtx.scale_by_psgd_kron(0.9, 1.0)
    numbers = gradtx.MuonDimensionNumbers(1, 2)
    stacked = gradtx.scale_by_psgd_kron(0.9, 1.0, weight_dimension_numbers=numbers)
    g, v = (np.random.default_rng(i).normal(size=(2, 4, 3)).astype(np.float32) for i in (0, 1))
    together = stacked.update(g, stacked.init(g), probe=v)[0]
    for i in range(2):
        alone = tx.update(g[i], tx.init(g[i]), probe=v[i])[0]
        np.testing.assert_allclose(together[i], alone, rtol=1e-5, atol=1e-6)


def test_a_key_is_one_run_and_another_key_another():
    g = gaussian(5, 3, A, B)
    one, same, other = (run(gradtx.scale_by_psgd_kron(0.9, 1.0, key=key), g)[0] for key in (1, jax.random.key(1), 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_products_in_bfloat16_are_near():
    g = gaussian(6, 1, A, B)[0]
    exact, rounded = (gradtx.scale_by_psgd_kron(0.9, 1.0, product_dtype=dtype) for dtype in (None, "bfloat16"))
    want, got = (np.asarray(tx.update(g, tx.init(g))[0]) for tx in (exact, rounded))
    assert 1e-5 < np.max(np.abs(got - want)) / np.max(np.abs(want)) < 0.03


def test_a_complex_matrix_becomes_white_too():
    tx = gradtx.scale_by_psgd_kron(0.0, 1.0)
    z = jax.random.normal(jax.random.key(0), (600, 3, 4), jnp.complex64)
    u, _ = jax.jit(lambda g: run(tx, g))(1e2 * (jnp.linalg.cholesky(A) + 0j) @ z)
    assert 0.5 < rms(np.asarray(u[-100:])) < 2


EDGES = {
    "zeros": jnp.zeros((3, 4)),
    "huge": jnp.full((3, 4), 1e30),
    "tiny": jnp.full((3, 4), 1e-30),
    "rank one": jnp.outer(jnp.arange(1.0, 4), jnp.arange(1.0, 5)),
    "one entry of many": jnp.zeros((3, 4)).at[1, 2].set(1.0),
    "a row": jnp.arange(1.0, 5)[None],
    "a column": jnp.arange(1.0, 5)[:, None],
    "an entry": jnp.ones((1, 1)),
    "a scalar": jnp.float32(2.0),
    "nothing": jnp.ones((0, 3)),
}


@pytest.mark.parametrize("kind", EDGES)
def test_edges_stay_finite_for_long(kind):
    g = jnp.tile(EDGES[kind], (1500, *[1] * EDGES[kind].ndim))
    u, state = jax.jit(
        lambda g: run(gradtx.chain(gradtx.scale_by_psgd_kron(0.9, 1.0), gradtx.clip_by_block_rms(1.1)), g)
    )(g)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((u, state)))
    if kind == "zeros":
        np.testing.assert_array_equal(state["scale_by_psgd_kron"].factors[0], jnp.eye(3))
        assert not np.any(u)


@pytest.mark.parametrize(("before", "after"), [(1e-30, 1e30), (1e30, 1e-30), (1e-18, 1e18)])
def test_a_jump_of_gradients_is_survived(before, after):
    """Until the factors have followed, updates are bounded by the clip, or nothing where they overflow."""
    tx = gradtx.chain(gradtx.scale_by_psgd_kron(0.0, 1.0), gradtx.clip_by_block_rms(1.1))
    g = gaussian(7, 3000, A, B)
    g = jnp.concatenate([before * g[:1000], after * g[1000:]])
    u, _ = jax.jit(lambda g: run(tx, g))(g)
    assert np.all(np.isfinite(u)) and 0.5 < rms(np.asarray(u[-100:])) < 1.2


def test_one_nan_decides_for_its_own_leaf():
    tx = gradtx.scale_by_psgd_kron(0.9, 1.0)
    g = {"a": jnp.ones((3, 4)).at[0, 0].set(jnp.nan), "b": jnp.ones((3, 4))}
    u, state = tx.update(g, tx.init(g))
    assert np.all(np.isfinite(u["b"])) and np.any(np.isnan(u["a"]))
    np.testing.assert_array_equal(state.factors["a"][0], jnp.eye(3))
    assert not np.array_equal(state.factors["b"][0], jnp.eye(3))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"b1": 1.0}, r"`scale_by_psgd_kron`.*b1"),
        ({"precond_lr": 2.0}, r"precond_lr"),
        ({"preconditioner_update_probability": 1.5}, r"preconditioner_update_probability"),
        ({"memory_save_mode": "two_diag"}, r"memory_save_mode.*one_diag"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradtx.scale_by_psgd_kron(**arguments)

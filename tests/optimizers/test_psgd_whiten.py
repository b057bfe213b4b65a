"""psgd_whiten: Li, 2024 (arXiv 2402.11858), the seven forms of psgd_torch's `KronWhiten`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx.linalg.whitening import FORMS

from ..oracle import check, rms
from . import psgd_oracle as psgd
from .test_psgd_kron import EDGES, SHAPES, A, B, gaussian, probed, rule_of, run


def whiten(
    form="Q0.5EQ1.5",
    rate=0.1,
    beta=0.9,
    damping=1e-9,
    momentum=0.0,
    scale=1.0,
    skew=1.0,
    first=True,
    grad=True,
    longest=9,
):
    """The formula of a leaf."""

    def leaf(p):
        shape = psgd.shape_of(p, merge=False)
        diagonal = [n <= 1 or n > longest or n**2 > skew * p.size for n in shape]
        p_scale = scale**2 if form in ("PRO4P", "QUAD4P") else scale
        state: dict = {"m": np.zeros(shape), "q": psgd.start(shape, p_scale, diagonal)}

        def step(g, p, v, t):
            g, v = g.reshape(shape), v.reshape(shape)
            b = min((t - 1) / t, momentum)
            state["m"] = b * state["m"] + (1 - b) * g
            x = g if grad else state["m"]
            h = x + (damping + np.finfo(float).eps * np.abs(x)) * v
            old, state["q"] = state["q"], psgd.fit(form, state["q"], h, v, rate, beta, 2)
            return psgd.whiten(form, (state["q"] if first else old)[0], state["m"]).reshape(p.shape)

        return step

    return leaf


@pytest.mark.parametrize("form", FORMS)
def test_the_forms(form):
    tx = gradtx.scale_by_psgd_whiten(dq=form, momentum=0.9, preconditioner_init_scale=0.7, damping=1e-2)
    tx, draws = probed(tx)
    check(tx, rule_of(draws, whiten(form, momentum=0.9, scale=0.7, damping=1e-2)), shapes=SHAPES)


@pytest.mark.parametrize("form", ["Q0.5EQ1.5", "EQ"])
def test_the_forms_in_float32(form):
    """A rounding is 6e-8; squares of squares of rounded numbers, over and over."""
    tx, draws = probed(gradtx.scale_by_psgd_whiten(dq=form, preconditioner_init_scale=1.0))
    check(tx, rule_of(draws, whiten(form)), "float32", shapes=SHAPES, tolerance=1e-4)


@pytest.mark.parametrize(
    ("arguments", "formula"),
    [
        ({"lr_preconditioner": 0.5, "beta_l": 0.5}, {"rate": 0.5, "beta": 0.5}),
        ({"momentum": 0.8, "whiten_grad": False}, {"momentum": 0.8, "grad": False}),
        ({"update_preconditioner_first": False}, {"first": False}),
        ({"preconditioner_max_skew": 0.0}, {"skew": 0.0}),
        ({"preconditioner_max_skew": np.inf}, {"skew": np.inf}),
        ({"preconditioner_max_size": 2}, {"longest": 2}),
    ],
)
def test_the_arguments(arguments, formula):
    tx, draws = probed(gradtx.scale_by_psgd_whiten(preconditioner_init_scale=1.0, **arguments))
    check(tx, rule_of(draws, whiten(**formula)), shapes=SHAPES)


def test_without_a_scale_the_first_gradients_tell_it():
    g = {"a": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "b": jnp.array([0.1, 0.2])}
    mean = np.mean(np.abs(np.asarray(g["a"], float)) ** 4)
    tx = gradtx.scale_by_psgd_whiten(0.0, damping=0.5)
    for form in ("QUAD", "QUAD4P"):
        tx = gradtx.scale_by_psgd_whiten(0.0, damping=0.5, dq=form)
        u, state = tx.update(g, tx.init(g))
        for x, y in zip(jax.tree.leaves(u), jax.tree.leaves(g), strict=True):
            np.testing.assert_allclose(x, y * (mean + 0.5**4) ** -0.25, rtol=1e-5)
        again, _ = tx.update(jax.tree.map(lambda x: 2 * x, g), state)
        np.testing.assert_allclose(again["b"], 2 * u["b"], rtol=1e-5)  # at the first update alone


@pytest.mark.parametrize("scale", [2.0**-80, 2.0**80])
def test_then_the_scale_of_gradients_does_not_matter(scale):
    tx = gradtx.scale_by_psgd_whiten(damping=0.0, momentum=0.9)
    g = gaussian(1, 20, A, B)
    program = jax.jit(lambda g: run(tx, g)[0])
    np.testing.assert_allclose(program(g), program(scale * g), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_become_white(form):
    """P (A x B) P tends to I."""
    rate = gradtx.exponential_decay(0.3, 1000, 0.1, end_value=0.01)
    tx = gradtx.chain(gradtx.scale_by_psgd_whiten(rate, dq=form, preconditioner_max_skew=np.inf))
    u, state = jax.jit(lambda g: run(tx, g))(gaussian(0, 2000, A, B))
    factors = state["scale_by_psgd_whiten"].factors
    k, l = factors if FORMS[form].direct else (q.T @ q for q in factors)
    values = np.linalg.eigvalsh(np.kron(k @ A @ k.T, l @ B @ l.T))
    assert 0.6 < values.min() and values.max() < 1.6, values
    assert abs(rms(np.asarray(u[-500:])) - 1) < 0.1


def test_the_chain_clips_twice():
    shapes = {"w": (4, 3)}
    tx = gradtx.psgd_whiten(0.1, grad_clip_max_amps=(0.7, 1.0), preconditioner_init_scale=1.0, weight_decay=0.3)
    tx, draws = probed(tx, shapes)

    def leaf(p):
        inner = whiten()(p)

        def step(g, p, v, t):
            u = inner(g, p, v, t)
            return -0.1 * (np.clip(u * min(1, 0.7 / rms(u)), -1, 1) + 0.3 * p)

        return step

    check(tx, rule_of(draws, leaf), shapes=shapes)


def test_factors_are_fitted_each_nth_time():
    tx = gradtx.scale_by_psgd_whiten(preconditioner_update_probability=0.5, preconditioner_init_scale=1.0)
    g, moved = gaussian(2, 4, A, B), []
    state = tx.init(g[0])
    for x in g:
        new = tx.update(x, state)[1]
        moved.append(not np.array_equal(new.factors[0], state.factors[0]))
        state = new
    assert moved == [False, True, False, True]


@pytest.mark.parametrize("form", ["Q0.5EQ1.5", "QUAD4P", "QEP"])
def test_a_vector_of_constant_gradients_becomes_signs(form):
    """Each entry is divided by its size, as in Adam."""
    g = jnp.tile(jnp.array([0.5, -2.0, 4.0]), (300, 1))
    u, _ = jax.jit(lambda g: run(gradtx.scale_by_psgd_whiten(dq=form), g))(g)
    np.testing.assert_allclose(u[-1], [1, -1, 1], rtol=1e-2)


@pytest.mark.parametrize("form", FORMS)
def test_edges_stay_finite(form):
    tx = gradtx.chain(gradtx.scale_by_psgd_whiten(dq=form, momentum=0.5), gradtx.clip_by_block_rms(2.0))
    g = {name: jnp.tile(x, (40, *[1] * x.ndim)) for name, x in EDGES.items()}
    alone = jax.jit(lambda g: jax.tree.map(lambda x: run(tx, x), g, is_leaf=lambda x: hasattr(x, "dtype")))(g)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(alone))
    together = jax.jit(lambda g: jax.lax.scan(lambda s, g: tx.update(g, s)[::-1], tx.init(EDGES), g))(g)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(together))


def test_a_dead_leaf_stays_bounded_by_the_damping():
    tx = gradtx.scale_by_psgd_whiten(damping=1e-3, preconditioner_init_scale=1.0)
    _, state = jax.jit(lambda g: run(tx, g))(jnp.zeros((1500, 3, 4)))
    k, l = state.factors
    largest = np.linalg.norm(k.T @ k, 2) * np.max(np.square(l))
    assert 300 < largest < 3000


def test_one_nan_decides_for_its_own_leaf():
    tx = gradtx.scale_by_psgd_whiten()
    g = {"a": jnp.ones((3, 4)).at[0, 0].set(jnp.nan), "b": jnp.ones((3, 4))}
    u, state = tx.update(g, tx.init(g))
    assert np.all(np.isfinite(u["b"])) and np.any(np.isnan(u["a"]))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state.factors))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dq": "QE"}, r"`scale_by_psgd_whiten`: dq must be one of .*QEQ"),
        ({"momentum": 1.0}, r"momentum"),
        ({"damping": -1.0}, r"damping"),
    ],
)
def test_errors_name_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        gradtx.scale_by_psgd_whiten(**arguments)

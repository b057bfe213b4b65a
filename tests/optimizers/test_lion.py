"""lion: Chen et al. 2023, Algorithm 2 (arXiv 2302.06675)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def lion(lr, b1=0.9, b2=0.99, decay=1e-3, decays=lambda p: True):
    """c = b1 m + (1 - b1) g, theta = theta - lr (sign(c) + wd theta), m = b2 m + (1 - b2) g."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            c = b1 * m + (1 - b1) * g
            m = b2 * m + (1 - b2) * g
            return -lr * (np.sign(c) + (decay * p if decays(p) else 0.0))

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    "options", [{}, {"b1": 0.5, "b2": 0.7}, {"b1": 0.95, "b2": 0.98}, {"b1": 0.0}, {"b1": 0.9, "b2": 0.5}]
)
def test_the_step_is_the_sign_of_a_mean_that_leans_on_the_newest_gradient(options, precision):
    check(gradtx.lion(0.01, **options), lion(0.01, **options), precision, steps=20)


@both_precisions
def test_the_parameters_shrink_by_the_rate_times_the_decay(precision):
    check(gradtx.lion(0.01, weight_decay=0.5), lion(0.01, decay=0.5), precision)


def test_lion_decays_only_what_its_mask_takes():
    tx = gradtx.lion(0.01, weight_decay=0.5, mask="kernel")
    check(tx, lion(0.01, decay=0.5, decays=lambda p: p.ndim == 2))


def test_lion_moves_every_coordinate_by_the_rate():
    rng = np.random.default_rng(6)
    p = jnp.zeros(50)
    tx = gradtx.lion(0.125, weight_decay=0.0)
    state = tx.init(p)
    for scale in 10.0 ** np.arange(-5, 5):
        updates, state = tx.update(jnp.asarray(scale * rng.normal(size=50), jnp.float32), state, p)
        np.testing.assert_array_equal(np.abs(updates), np.full(50, 0.125))


def test_with_equal_decays_lion_is_the_sign_of_the_mean_gradient():
    lion = gradtx.scale_by_lion(b1=0.9, b2=0.9)
    signum = gradtx.chain(gradtx.ema(0.9, debias=False), gradtx.scale_by_sign())
    g = jnp.asarray(np.random.default_rng(7).normal(size=(15, 20)), jnp.float32)

    def run(tx):
        def step(state, g):
            updates, state = tx.update(g, state, g)
            return state, updates

        return jax.lax.scan(step, tx.init(g[0]), g)[1]

    np.testing.assert_array_equal(run(lion), run(signum))


def test_a_gradient_of_zero_without_history_does_not_move():
    tx = gradtx.lion(0.1, weight_decay=0.0)
    p = jnp.ones(3)
    updates, _ = tx.update(jnp.zeros(3), tx.init(p), p)
    np.testing.assert_array_equal(updates, np.zeros(3))


def test_a_mean_stored_in_bfloat16_stays_bfloat16():
    p = jnp.ones(4)
    tx = gradtx.scale_by_lion(mu_dtype=jnp.bfloat16)
    state = tx.init(p)
    _, after = tx.update(p, state, p)
    assert state.mu.dtype == after.mu.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(after.mu, np.float32), np.full(4, 0.01), rtol=1e-2)  # bfloat16 keeps 8 bits


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.5), ("b2", -0.5), ("b2", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_lion`.*{argument}.*{value}"):
        gradtx.scale_by_lion(**{argument: value})


def squashed(squash, b1=0.9, b2=0.99):
    """c = b1 m + (1 - b1) g, u = squash(c), m = b2 m + (1 - b2) g."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            c = b1 * m + (1 - b1) * g
            m = b2 * m + (1 - b2) * g
            return squash(c) if np.isrealobj(c) else squash(c.real) + 1j * squash(c.imag)

        return step

    return rule


MODES = {
    "hard": ({}, np.sign),
    "smooth": ({"mode": "smooth"}, np.tanh),
    "sharper": ({"mode": "smooth", "smooth_beta": 20.0}, lambda c: np.tanh(20 * c)),
    "refined": ({"mode": "refined"}, lambda c: np.where(np.abs(c) < 1, c, np.sign(c))),
}


@both_precisions
@pytest.mark.parametrize(("options", "squash"), MODES.values(), ids=MODES)
@pytest.mark.parametrize("decays", [{}, {"b1": 0.0, "b2": 0.5}])
def test_the_sign_may_be_a_softer_function(options, squash, decays, precision):
    check(gradtx.scale_by_lion(**options, **decays), squashed(squash, **decays), precision)


@pytest.mark.parametrize(("options", "squash"), MODES.values(), ids=MODES)
def test_a_complex_entry_counts_as_its_two_parts(options, squash):
    tx = gradtx.chain(gradtx.scale_by_lion(**options), gradtx.scale_by_learning_rate(-1.0))
    check(tx, squashed(squash), complex_leaves=("dense/kernel",))


def test_an_unknown_mode_is_an_error_that_lists_them():
    with pytest.raises(ValueError, match=r"`scale_by_lion`: mode must be one of \('hard', 'smooth', 'refined'\)"):
        gradtx.scale_by_lion(mode="soft")

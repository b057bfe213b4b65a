"""mechanize: Cutkosky, Defazio, Mehta 2023, Algorithm 1 (arXiv 2306.00144), with the bound of the authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def mechanic(rate, decay=1e-2, eps=1e-8, s_init=1e-6, n=6):
    """Around gradient descent with a rate: delta is the sum of its steps, and s, one for each beta, their factor."""

    def rule(first):
        beta = 1 - 0.1 ** np.arange(1, n + 1)
        r, m, v, s = np.zeros(n), np.zeros(n), np.zeros(n), np.full(n, s_init)
        size = lambda tree: np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in tree.values()))

        def step(g, p, t):
            nonlocal r, m, v, s
            total = np.sum(s)
            delta = {k: (first[k] - p[k]) / (total + eps) for k in p}
            pull = decay * total * size(g) / (size(p) + eps)
            h = sum(np.sum(((g[k] + pull * p[k]).conj() * delta[k]).real) for k in p)
            clipped = np.clip(h, -m, m)
            m = np.maximum(beta * m, abs(h) + eps)
            v = beta**2 * v + h**2
            r = beta * r + clipped * s
            s = (s_init / n * m + np.maximum(r, 0)) / (np.sqrt(v) + eps)
            return {k: first[k] - np.sum(s) * (delta[k] + rate * g[k]) - p[k] for k in p}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({"s_init": 0.1}, {"s_init": 0.1}),
        ({"s_init": 0.1, "weight_decay": 0.0, "num_betas": 1}, {"s_init": 0.1, "decay": 0.0, "n": 1}),
        (
            {"s_init": 0.5, "weight_decay": 0.5, "num_betas": 3, "eps": 0.1},
            {"s_init": 0.5, "decay": 0.5, "n": 3, "eps": 0.1},
        ),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    # float32: a step is a small difference of parameters near 1, divided by the sum of s and multiplied by it
    check(
        gradtx.mechanize(gradtx.sgd(0.1), **options),
        mechanic(0.1, **theirs),
        precision,
        tolerance=1e-4 if precision == "float32" else None,
    )


def test_with_the_default_start_too():
    # the first steps are 1e-6 of parameters near 1, and divided by 1e-6 the rounding of float64 is 1e-10
    check(gradtx.mechanize(gradtx.sgd(0.1)), mechanic(0.1), tolerance=1e-6)


def test_complex_parameters_are_pairs_of_reals_to_the_products():
    tx = gradtx.mechanize(gradtx.sgd(0.1), s_init=0.1)
    check(tx, mechanic(0.1, s_init=0.1), complex_leaves=("dense/kernel",))


@pytest.mark.parametrize("base", [gradtx.sgd(1.0), gradtx.adam(1.0), gradtx.lion(1.0)])
def test_it_finds_the_scale_of_the_problem(base):
    target, p = jnp.array([30.0, -40.0]), jnp.zeros(2)
    tx = gradtx.mechanize(base, weight_decay=0.0)

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(p - target, state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=3000)
    np.testing.assert_allclose(p, target, rtol=0.03)  # Optax's own test asks for this


def test_vectors_are_wide_whatever_the_parameters():
    p = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.mechanize(gradtx.sgd(0.1), num_betas=2)
    state = tx.init(p)
    _, after = tx.update(p, state, p)
    for s in (state, after):
        assert {x.dtype for x in (s.r, s.m, s.v, s.s)} == {jnp.dtype("float32")} and s.x0.dtype == jnp.bfloat16
        assert s.s.shape == (2,)


def test_first_parameters_are_a_copy_and_no_buffer_is_there_twice():
    p = jnp.ones(3)
    tx = gradtx.mechanize(gradtx.adam(0.1))
    state = tx.init(p)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((p, state))]
    assert len(set(buffers)) == len(buffers)
    jax.jit(lambda p, state: tx.update(p, state, p), donate_argnums=(0, 1))(p, state)


def test_the_start_is_where_the_first_update_was_made():
    tx, loaded = gradtx.mechanize(gradtx.sgd(0.1)), jnp.full(2, 7.0)
    _, state = tx.update(jnp.ones(2), tx.init(jnp.zeros(2)), loaded)
    np.testing.assert_array_equal(state.x0, loaded)


@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_zero_gradients_move_nothing(eps):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.mechanize(gradtx.sgd(0.1), eps=eps)
    state, zero = tx.init(p), jax.tree.map(jnp.zeros_like, p)
    for _ in range(3):
        updates, state = tx.update(zero, state, p)
        np.testing.assert_array_equal(updates["w"], np.zeros(3))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_all_arguments_reach_the_base_and_its_schedules_live_by_the_count():
    seen = []

    def update(updates, state, params=None, *, batch, **extra):
        seen.append(batch)
        return updates, state

    p = jnp.ones(2)
    tx = gradtx.mechanize(gradtx.GradientTransformation(lambda p: (), update))
    tx.update(p, tx.init(p), p, batch="this")
    assert seen and set(seen) == {"this"}
    timed = gradtx.mechanize(gradtx.trace(lambda t: 0.5 * t))
    _, state = timed.update(p, timed.init(p), p)
    _, state = timed.update(p, state, p)
    np.testing.assert_array_equal(state.base_optimizer_state.trace, np.full(2, 1.5))


def test_a_parameter_without_gradient_enters_no_product():
    p, g = {"a": jnp.ones(3), "b": jnp.ones(2)}, {"a": jnp.ones(3), "b": None}
    tx = gradtx.mechanize(gradtx.sgd(0.1))
    state, alone = tx.init(p), tx.init({"a": p["a"]})
    for _ in range(3):
        updates, state = tx.update(g, state, p)
        of_one, alone = tx.update({"a": g["a"]}, alone, {"a": p["a"]})
    np.testing.assert_array_equal(updates["a"], of_one["a"])
    assert updates["b"] is None


def test_an_argument_out_of_range_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`mechanize`: s_init must be positive, got 0\.0"):
        gradtx.mechanize(gradtx.sgd(0.1), s_init=0.0)
    with pytest.raises(TypeError, match="`mechanize`: base_optimizer must be a gradient transformation"):
        gradtx.mechanize(0.1)
    with pytest.raises(ValueError, match="`mechanize` reads the parameters"):
        gradtx.mechanize(gradtx.sgd(0.1)).update(jnp.ones(2), gradtx.mechanize(gradtx.sgd(0.1)).init(jnp.ones(2)))

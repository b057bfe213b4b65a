"""momo: Schaipp et al. 2023, Algorithms 1 and 3 (arXiv 2305.07583)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check


def with_value(tx):
    """The same, given the loss that the rule below knows."""
    loss = lambda p: sum(jnp.sum(jnp.abs(x) ** 2) for x in jax.tree.leaves(p))
    return gradtx.GradientTransformation(tx.init, lambda g, state, p: tx.update(g, state, p, value=loss(p)))


def inner(a, b):
    return sum(np.sum((a[k].conj() * b[k]).real) for k in a)


def momo(alpha=1.0, beta=0.9, low=0.0, decay=0.0, adapts=False, unbiased=False):
    """d = beta d + (1 - beta) g, and f, gamma alike, from the first; the model's minimum decides the step."""

    def rule(first):
        d, f, gamma, bound = None, None, None, low

        def step(g, p, t):
            nonlocal d, f, gamma, bound
            mass = 1 - beta**t if unbiased else 1
            first = 1 - beta if unbiased else 1
            mix = lambda old, new: first * new if t == 1 else beta * old + (1 - beta) * new
            f, gamma = mix(f, inner(p, p)), mix(gamma, inner(g, p))
            d = {k: mix(d and d[k], g[k]) for k in g}
            a = 1 + alpha * decay
            if adapts:
                cap = a * (f - gamma) + inner(d, p)
                bound = max(cap / (2 * a), low) if cap < a * bound else bound
            tau = min(alpha / mass, max(a * (f - mass * bound - gamma) + inner(d, p), 0) / inner(d, d))
            if adapts:
                bound = max(f + inner(d, p) - gamma - tau * inner(d, d) / 2, low)
            return {k: (p[k] - tau * d[k]) / a - p[k] for k in g}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"learning_rate": 0.1, "beta": 0.5}, {"alpha": 0.1, "beta": 0.5}),
        ({"beta": 0.0, "lower_bound": -3.0}, {"beta": 0.0, "low": -3.0}),
        ({"weight_decay": 0.5, "learning_rate": 0.3}, {"decay": 0.5, "alpha": 0.3}),
        ({"lower_bound": -3.0, "bias_correction": True}, {"low": -3.0, "unbiased": True}),
        (
            {"lower_bound": -20.0, "adapt_lower_bound": True, "weight_decay": 0.1},
            {"low": -20.0, "adapts": True, "decay": 0.1},
        ),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(with_value(gradtx.momo(**options)), momo(**theirs), precision, coupling=2.0)


def test_complex_parameters_are_pairs_of_reals_to_the_products():
    check(with_value(gradtx.momo()), momo(), complex_leaves=("dense/kernel",))


def test_without_momentum_it_is_polyaks_step():
    p, g = jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])
    tx = gradtx.momo(beta=0.0, lower_bound=1.0)
    updates, _ = tx.update(g, tx.init(p), p, value=5.0)
    np.testing.assert_allclose(updates, -g * (5 - 1) / 20, rtol=1e-6)  # float32


def test_the_learning_rate_is_the_longest_step():
    p, g = jnp.array([1.0, 2.0]), jnp.array([2.0, 4.0])
    updates, _ = gradtx.momo(0.01).update(g, gradtx.momo().init(p), p, value=5.0)
    np.testing.assert_allclose(updates, -g * 0.01, rtol=1e-6)  # float32


def test_its_rate_may_be_a_schedule():
    p, g, tx = jnp.ones(1), jnp.ones(1), gradtx.momo(lambda t: 0.1 * t)
    updates, state = tx.update(g, tx.init(p), p, value=100.0)
    assert updates[0] == 0
    updates, _ = tx.update(g, state, p, value=100.0)
    np.testing.assert_allclose(updates, [-0.1], rtol=1e-6)  # float32


def test_the_scalars_are_wide_whatever_the_parameters_and_the_loss():
    p, tx = jnp.ones(2, jnp.bfloat16), gradtx.momo(lower_bound=0.1)
    state = tx.init(p)
    assert {x.dtype for x in state[1:4]} == {jnp.dtype("float32")} and state.lb == np.float32(0.1)
    _, after = tx.update(p, state, p, value=jnp.bfloat16(1))
    assert {x.dtype for x in after[1:4]} == {jnp.dtype("float32")}
    assert len({x.unsafe_buffer_pointer() for x in state}) == len(state)


@pytest.mark.parametrize("adapts", [True, False])
def test_zero_gradients_move_nothing(adapts):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.momo(adapt_lower_bound=adapts)
    zero = jax.tree.map(jnp.zeros_like, p)
    updates, state = tx.update(zero, tx.init(p), p, value=3.0)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_small_gradients_have_polyaks_step_too():
    p, g = jnp.zeros(1), jnp.full(1, 1e-9)
    updates, _ = gradtx.momo(1e30).update(g, gradtx.momo().init(p), p, value=1e-18)
    np.testing.assert_allclose(updates, [-1e-9], rtol=1e-6)  # the minimum of p^2; float32


def test_what_it_reads_it_asks_for():
    tx, p = gradtx.momo(), jnp.ones(2)
    with pytest.raises(ValueError, match=r"`momo` reads the loss: .*value=value"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match=r"`momo`: value must be one number, got the shape \(2,\)"):
        tx.update(p, tx.init(p), p, value=p)
    with pytest.raises(ValueError, match="`momo` reads the parameters"):
        tx.update(p, tx.init(p), value=1.0)


@pytest.mark.parametrize(("argument", "value"), [("beta", 1.0), ("learning_rate", -1.0), ("weight_decay", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`momo`.*{argument}.*{value}"):
        gradtx.momo(**{argument: value})

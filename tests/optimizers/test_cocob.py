"""cocob: Orabona and Tommasi 2017, Algorithm 2 (arXiv 1705.07795)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def cocob(alpha=100.0, eps=1e-8, decay=0.0, rate=1.0):
    """w = w_1 + theta / (L max(G + L, alpha L)) (L + Reward), with theta minus the sum of gradients."""

    @leafwise
    def rule(first):
        largest, size, reward = np.full(first.shape, eps), np.zeros(first.shape), np.zeros(first.shape)
        theta = np.zeros_like(first)

        def step(g, p, t):
            nonlocal largest, size, reward, theta
            g = rate * (g + decay * p)
            largest, size = np.maximum(largest, np.abs(g)), size + np.abs(g)
            reward = np.maximum(reward - (g.conj() * (p - first)).real, 0)
            theta = theta - g
            bet = theta / (largest * np.maximum(size + largest, alpha * largest)) * (largest + reward)
            return first + bet - p

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"alpha": 2.0}, {"alpha": 2.0}),
        ({"alpha": 0.0, "eps": 3.0}, {"alpha": 0.0, "eps": 3.0}),
        ({"weight_decay": 0.5, "learning_rate": 0.25}, {"decay": 0.5, "rate": 0.25}),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(gradtx.cocob(**options), cocob(**theirs), precision)


def test_complex_parameters_bet_on_their_phase():
    check(gradtx.cocob(), cocob(), complex_leaves=("dense/kernel",))


def test_the_scale_of_the_gradients_does_not_matter():
    p = jnp.ones(3)
    tx = gradtx.cocob(eps=0.0)
    small, large = (tx.update(jnp.array([1.0, -2.0, 3.0]) * x, tx.init(p), p)[0] for x in (1e-18, 1e18))
    np.testing.assert_allclose(small, large, rtol=1e-6)  # float32, in which the square of the small scale is 0
    np.testing.assert_allclose(small, [-0.01, 0.01, -0.01], rtol=1e-6)


def test_it_reaches_a_minimum():
    target, p = jnp.array([3.0, -4.0]), jnp.zeros(2)
    tx = gradtx.cocob()

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(jnp.sign(p - target), state, p)
        return (gradtx.apply_updates(p, updates), state), None

    (p, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=5000)
    np.testing.assert_allclose(p, target, rtol=0.1)  # it swings around the kink


def test_sums_are_wide_whatever_the_parameters():
    p, tx = jnp.ones(2, jnp.bfloat16), gradtx.scale_by_cocob()
    state = tx.init(p)
    step = lambda state, _: (tx.update(jnp.ones(2, jnp.bfloat16), state, p)[1], None)
    last, _ = jax.lax.scan(step, state, length=1000)
    assert state.reward.dtype == last.scale.dtype == jnp.float32 and last.init_particles.dtype == jnp.bfloat16
    np.testing.assert_array_equal(last.subgradients, np.full(2, 1000.0))  # bfloat16 would stop at 256


def test_first_parameters_are_a_copy_and_no_buffer_is_there_twice():
    p = jnp.ones(3)
    tx = gradtx.scale_by_cocob()
    state = tx.init(p)
    assert len({x.unsafe_buffer_pointer() for x in (p, *state)}) == 6
    jax.jit(lambda p, state: tx.update(p, state, p), donate_argnums=(0, 1))(p, state)


@pytest.mark.parametrize("eps", [1e-8, 0.0])
def test_zero_gradients_move_nothing(eps):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.cocob(eps=eps)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))


@pytest.mark.parametrize(("argument", "value"), [("alpha", -1.0), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`scale_by_cocob`.*{argument}.*{value}"):
        gradtx.cocob(**{argument: value})


def test_it_needs_the_parameters():
    tx = gradtx.scale_by_cocob()
    with pytest.raises(ValueError, match="`scale_by_cocob` reads the parameters"):
        tx.update(jnp.ones(2), tx.init(jnp.ones(2)))

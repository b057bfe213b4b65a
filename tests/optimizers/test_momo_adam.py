"""momo_adam: Schaipp et al. 2023, Algorithms 2 and 3 (arXiv 2305.07583)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers.test_momo import inner, with_value
from tests.oracle import both_precisions, check


def momo_adam(alpha=0.01, b1=0.9, b2=0.999, eps=1e-8, low=0.0, decay=0.0, adapts=False, divides=True):
    """Averages from zero; D = sqrt(v / (1 - b2^t)) + eps is the metric, 1 - b1^t the mass of the averages."""

    def rule(first):
        m, v = {k: np.zeros_like(p) for k, p in first.items()}, {k: np.zeros(p.shape) for k, p in first.items()}
        f, gamma, bound = 0.0, 0.0, low

        def step(g, p, t):
            nonlocal f, gamma, bound
            f, gamma = b1 * f + (1 - b1) * inner(p, p), b1 * gamma + (1 - b1) * inner(g, p)
            for k in g:
                m[k], v[k] = b1 * m[k] + (1 - b1) * g[k], b2 * v[k] + (1 - b2) * np.abs(g[k]) ** 2
            u = {k: m[k] / (np.sqrt(v[k] / (1 - b2**t)) + eps) for k in g}
            a, mass = 1 + alpha * decay, 1 - b1**t
            if adapts:
                cap = a * (f - gamma) + inner(m, p)
                bound = max(cap / (2 * mass * a), low) if cap < a * mass * bound else bound
            tau = min(alpha / mass, max(a * (f - mass * bound - gamma) + inner(m, p), 0) / inner(m, u))
            if adapts:
                bound = max((f + inner(m, p) - gamma - tau * inner(m, u) / 2) / mass, low)
            if not divides:
                return {k: -alpha * decay * p[k] - tau * u[k] for k in g}
            return {k: (p[k] - tau * u[k]) / a - p[k] for k in g}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize(
    ("options", "theirs"),
    [
        ({}, {}),
        ({"learning_rate": 10.0, "b1": 0.5, "b2": 0.8}, {"alpha": 10.0, "b1": 0.5, "b2": 0.8}),
        ({"b1": 0.0, "lower_bound": -3.0, "eps": 0.1}, {"b1": 0.0, "low": -3.0, "eps": 0.1}),
        ({"weight_decay": 0.5, "learning_rate": 0.3}, {"decay": 0.5, "alpha": 0.3}),
        (
            {"weight_decay": 0.5, "learning_rate": 0.3, "divide": False},
            {"decay": 0.5, "alpha": 0.3, "divides": False},
        ),
        (
            {"lower_bound": -20.0, "adapt_lower_bound": True, "weight_decay": 0.1, "learning_rate": 0.3},
            {"low": -20.0, "adapts": True, "decay": 0.1, "alpha": 0.3},
        ),
    ],
)
def test_it_is_the_papers_formula(options, theirs, precision):
    check(with_value(gradtx.momo_adam(**options)), momo_adam(**theirs), precision, coupling=2.0)


def test_complex_parameters_are_pairs_of_reals_to_the_products():
    check(with_value(gradtx.momo_adam(1.0)), momo_adam(1.0), complex_leaves=("dense/kernel",))


def test_far_from_the_minimum_it_is_adam():
    p, g = jnp.array([1.0, 2.0]), jnp.array([2.0, -4.0])
    ours, adam = gradtx.momo_adam(0.1), gradtx.adam(0.1)
    state, of_adam = ours.init(p), adam.init(p)
    for _ in range(3):
        updates, state = ours.update(g, state, p, value=1e3)
        wanted, of_adam = adam.update(g, of_adam, p)
        np.testing.assert_allclose(updates, wanted, rtol=1e-6)  # float32


def test_the_scalars_are_wide_whatever_the_parameters_and_the_loss():
    p, tx = jnp.ones(2, jnp.float16), gradtx.momo_adam(lower_bound=0.1)
    state = tx.init(p)
    assert {x.dtype for x in state[:5]} == {jnp.dtype("float32")} and state.lb == np.float32(0.1)
    updates, after = tx.update(jnp.full(2, 1e-5, jnp.float16), state, p, value=jnp.float16(1))
    assert {x.dtype for x in after[:5]} == {jnp.dtype("float32")}
    np.testing.assert_allclose(updates, [-0.01, -0.01], rtol=2e-3)  # in float16 eps and the square are 0: NaN
    assert len({x.unsafe_buffer_pointer() for x in state}) == len(state)


@pytest.mark.parametrize("options", [{}, {"adapt_lower_bound": True}, {"eps": 0.0}])
def test_zero_gradients_move_nothing(options):
    p = {"w": jnp.ones(3), "empty": jnp.zeros((0, 2))}
    tx = gradtx.momo_adam(**options)
    updates, state = tx.update(jax.tree.map(jnp.zeros_like, p), tx.init(p), p, value=3.0)
    np.testing.assert_array_equal(updates["w"], np.zeros(3))
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(state))


def test_what_it_reads_it_asks_for():
    tx, p = gradtx.momo_adam(), jnp.ones(2)
    with pytest.raises(ValueError, match=r"`momo_adam` reads the loss: .*value=value"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="`momo_adam` reads the parameters"):
        tx.update(p, tx.init(p), value=1.0)


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("learning_rate", -1.0), ("eps", -1.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`momo_adam`.*{argument}.*{value}"):
        gradtx.momo_adam(**{argument: value})

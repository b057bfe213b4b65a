"""normuon: Li et al. 2025, Algorithm 1, with the norm of the authors' code (tests/trajectories/test_muon.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers.test_muon import LOOSE, SHAPES, STANDARD, orthogonal
from tests.oracle import both_precisions, check, check_same, leafwise


def rule(lr=0.02, beta=0.95, b2=0.95, eps=1e-10, decay=0.0):
    def method(p):
        mean, nu = np.zeros_like(p), np.zeros(p.shape[1])

        def step(g, p, t):
            nonlocal mean, nu
            mean = beta * mean + (1 - beta) * g
            o = orthogonal((1 - beta) * g + beta * mean, (STANDARD,) * 5, 1e-7)
            nu = b2 * nu + (1 - b2) * np.mean(o**2, axis=0)
            v = o / (np.sqrt(nu) + eps)
            v *= np.linalg.norm(o) / np.linalg.norm(v)
            return -lr * (v * np.sqrt(max(1, p.shape[1] / p.shape[0])) + decay * p)

        return step

    return leafwise(method)


@both_precisions
def test_twelve_steps_are_the_papers(precision):
    tx = gradtx.normuon(0.02, 0.9, 0.8, weight_decay=0.1)
    check(tx, rule(beta=0.9, b2=0.8, decay=0.1), precision, shapes=SHAPES, tolerance=LOOSE[precision])


def test_without_memory_and_with_equal_neurons_it_is_muon():
    """A large eps makes all neurons' divisors equal."""
    links = gradtx.chain(gradtx.ema(0.95, debias=False, nesterov=True), gradtx.orthogonalize(), gradtx.scale_by_shape())
    muon = gradtx.chain(links, gradtx.scale_by_learning_rate(0.02))
    check_same(gradtx.normuon(0.02, eps=1e12), muon, shapes=SHAPES, tolerance=1e-10)


def test_heavy_balls_and_averages_are_one_direction():
    """The sum is the average over 1 - beta: only the iteration's eps sees the difference."""
    orthogonalizer = lambda eps: gradtx.newton_schulz(eps=eps)
    ball = gradtx.normuon(0.02, gradtx.trace(0.95, nesterov=True), orthogonalizer=orthogonalizer(1e-3))
    check_same(
        ball, gradtx.normuon(0.02, orthogonalizer=orthogonalizer(1e-3 * (1 - 0.95))), shapes=SHAPES, tolerance=1e-10
    )


def test_its_decay_may_be_traced():
    params = {"w": jnp.arange(12.0).reshape(4, 3)}

    def mean(momentum):
        tx = gradtx.normuon(0.01, momentum)
        return jax.tree.leaves(tx.update(params, tx.init(params), params))

    of_each = jax.vmap(mean)(jnp.array([0.5, 0.9]))
    for i, momentum in enumerate((0.5, 0.9)):
        for x, y in zip(of_each, mean(momentum), strict=True):
            np.testing.assert_allclose(x[i], y, rtol=1e-5, atol=1e-6)  # float32, other kernels


def test_what_is_no_matrix_is_another_methods():
    params = {"w": jnp.ones((2, 3)), "embedding": jnp.ones((4, 2)), "b": jnp.ones(3)}
    state = gradtx.normuon(0.1, others=gradtx.sgd(0.5), others_mask="embedding").init(params)
    assert set(state.inner_states) == {"matrices", "others"}
    tx = gradtx.normuon(0.1, others=gradtx.sgd(0.5), others_mask="embedding", weight_decay=0.5)
    updates = tx.update(params, tx.init(params), params)[0]
    assert np.all(updates["b"] == -0.5) and np.all(updates["embedding"] == -0.5)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"momentum": 1.0}, "`ema`.*decay"),
        ({"b2": 1.0}, "`normalize_neurons`.*b2"),
        ({"shape_rule": "square"}, "`scale_by_shape`.*rule.*square"),
        ({"weight_decay": -1.0}, "weight_decay"),
    ],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(arguments, said):
    with pytest.raises(ValueError, match=said):
        gradtx.normuon(0.1, **arguments)
    with pytest.raises(TypeError, match=r"`orthogonalize`.*orthogonalizer"):
        gradtx.normuon(0.1, orthogonalizer="dion")

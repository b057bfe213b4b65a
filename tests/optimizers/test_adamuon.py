"""adamuon: Si et al. 2025; the authors' code: tests/trajectories/test_muon.py."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.optimizers.test_muon import LOOSE, SHAPES, STANDARD, orthogonal
from tests.oracle import both_precisions, check, leafwise


def rule(lr=0.02, beta=0.95, b2=0.95, eps=1e-8, decay=0.01, rms=0.2):
    def method(p):
        mean, nu = np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal mean, nu
            mean = beta * mean + (1 - beta) * g
            o = orthogonal(np.sign((1 - beta) * g + beta * mean), (STANDARD,) * 5, 1e-7)
            nu = b2 * nu + (1 - b2) * o**2
            v = o / (np.sqrt(nu) + eps)
            return -lr * (v * rms * np.sqrt(p.size) / (np.linalg.norm(v) + eps) + decay * p)

        return step

    return leafwise(method)


@both_precisions
def test_twelve_steps_are_the_papers(precision):
    tx = gradtx.adamuon(0.02, 0.9, 0.8, 1e-3, 0.1, rms=0.3)
    wanted = rule(beta=0.9, b2=0.8, eps=1e-3, decay=0.1, rms=0.3)
    check(tx, wanted, precision, shapes=SHAPES, tolerance=LOOSE[precision])


def test_steps_have_the_root_mean_square_that_is_asked_for():
    g = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)}
    tx = gradtx.adamuon(0.5, weight_decay=0.0)
    u = tx.update(g, tx.init(g), g)[0]["w"]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(u))), 0.5 * 0.2, rtol=1e-5)


def test_only_the_momentums_signs_matter():
    g = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(4, 7)), jnp.float32)}
    tx = gradtx.adamuon(0.5)
    scaled = {"w": g["w"] * jnp.asarray(np.random.default_rng(1).uniform(0.1, 10, (4, 7)), jnp.float32)}
    np.testing.assert_allclose(tx.update(scaled, tx.init(g), g)[0]["w"], tx.update(g, tx.init(g), g)[0]["w"])


def test_zero_gradients_move_nothing_but_by_decay():
    p = {"w": jnp.ones((3, 2)), "b": jnp.ones(2)}
    tx = gradtx.adamuon(0.5, weight_decay=0.0, others=gradtx.sgd(0.1))
    zero = {"w": jnp.zeros((3, 2)), "b": jnp.zeros(2)}
    assert not any(np.any(u) for u in tx.update(zero, tx.init(p), p)[0].values())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"momentum": -0.1}, "`ema`.*decay"), ({"b2": 1.0}, "decay"), ({"rms": -1.0}, "rms"), ({"eps": -1.0}, "eps")],
)
def test_an_argument_out_of_range_is_an_error_that_names_it(arguments, said):
    with pytest.raises(ValueError, match=said):
        gradtx.adamuon(0.1, **arguments)

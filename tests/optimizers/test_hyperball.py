"""hyperball: matrices on a sphere, turned by the learning rate (arXiv 2606.16899)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise, norm

SHAPES = {"a": (4, 3), "b": (5, 2)}


def on_sphere(direction, rate, radius=None):
    """W <- R N(W - rate R N(u)), u from `direction(p) -> step(g, t)`."""

    @leafwise
    def rule(p):
        r, u = norm(p) if radius is None else radius, direction(p)

        def step(g, p, t):
            d = u(g, t)
            moved = p - rate * r * d / norm(d)
            return r * moved / norm(moved) - p

        return step

    return rule


def adam(p):
    m, v = np.zeros_like(p), np.zeros_like(p)

    def step(g, t):
        nonlocal m, v
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        return m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    return step


def polar(p):
    """Of a momentum, the matrix with all singular values 1."""
    m = np.zeros_like(p)

    def step(g, t):
        nonlocal m
        m = 0.95 * m + 0.05 * g
        u, _, v = np.linalg.svd(m, full_matrices=False)
        return u @ v

    return step


@both_precisions
@pytest.mark.parametrize("options", [{}, {"radius": 3.0}])
def test_adam_on_a_sphere(options, precision):
    tx = gradtx.hyperball(gradtx.scale_by_adam(), 0.05, **options)
    check(tx, on_sphere(adam, 0.05, **options), precision, shapes=SHAPES)


def test_muon_on_a_sphere():
    cubic = (1.5, -0.5, 0.0)  # converges to the polar factor
    muon = gradtx.scale_by_muon(cubic, 40, 0.95, nesterov=False)
    check(gradtx.hyperball(muon, 0.05), on_sphere(polar, 0.05), shapes=SHAPES, tolerance=1e-6)  # eps in its norm


def test_the_rate_is_the_angle_of_a_step_across_the_weight():
    w, g = jnp.array([[3.0, 0.0]]), jnp.array([[0.0, 1e-3]])
    tx = gradtx.hyperball(gradtx.identity(), 0.1)
    new = gradtx.apply_updates(w, tx.update(g, tx.init(w), w)[0])
    np.testing.assert_allclose(np.arctan2(-new[0, 1], new[0, 0]), np.arctan(0.1), rtol=1e-5)


def test_the_directions_length_does_not_matter():
    rng = np.random.default_rng(0)
    w, g = (jnp.asarray(rng.normal(size=(3, 4)), jnp.float32) for _ in range(2))
    tx = gradtx.hyperball(gradtx.identity(), 0.1)
    step = lambda g: tx.update(g, tx.init(w), w)[0]
    for factor in (1e-6, 1e6):
        np.testing.assert_allclose(step(factor * g), step(g), rtol=1e-4, atol=1e-6)


def test_matrices_turn_beside_another_method_for_the_rest():
    params = {"w": jnp.eye(3), "b": jnp.zeros(3)}
    tx = gradtx.partition(
        {2: gradtx.hyperball(gradtx.scale_by_muon(), gradtx.linear_schedule(0.1, 0.0, 10)), 1: gradtx.adamw(1e-3)},
        lambda params: {name: p.ndim for name, p in params.items()},
    )
    state = tx.init(params)
    for _ in range(10):
        updates, state = tx.update({"w": params["w"] + 1, "b": jnp.ones(3)}, state, params)
        params = gradtx.apply_updates(params, updates)
    np.testing.assert_allclose(np.linalg.norm(params["w"]), 3**0.5, rtol=1e-6)
    np.testing.assert_allclose(params["b"], -0.01, rtol=1e-3)

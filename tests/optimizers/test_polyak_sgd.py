"""polyak_sgd: Loizou, Vaswani, Laradji, Lacoste-Julien 2021, equation 3, SPS_max; Garrigos et al. 2023 for sps+."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions

A = np.array([1.0, 3.0, 0.5])


def loss(p, floor, library: Any = np):
    return library.sum(A * p["w"] ** 2) / 2 + library.sum((p["b"] - 1) ** 2) + floor


def by_formula(steps, most, scaling, f_min, eps, floor, plus):
    """gamma_t = min((f - f_min) / (|g|^2 + eps), most), g scaled first; theta -= gamma g."""
    p = {"w": np.array([1.0, -2.0, 3.0]), "b": np.array([[2.0], [0.5]])}
    for t in range(steps):
        g = {"w": scaling(t) * A * p["w"], "b": scaling(t) * 2 * (p["b"] - 1)}
        gap = loss(p, floor) - f_min
        gap = max(gap, 0) if plus else gap
        rate = min(gap / (sum(np.sum(x**2) for x in g.values()) + eps), most)
        p = {k: p[k] - rate * g[k] for k in p}
    return p


@both_precisions
@pytest.mark.parametrize(
    ("options", "floor"),
    [
        ({}, 0.0),
        ({"max_learning_rate": 0.1}, 0.0),
        ({"scaling": 0.5, "eps": 0.1}, 0.0),
        ({"scaling": lambda t: 1 / (1.0 + t)}, 0.0),
        ({"f_min": -1.0}, -1.0),
        ({"f_min": 0.5}, 0.0),
        ({"f_min": 0.5, "variant": "sps+"}, 0.0),
    ],
)
def test_the_rate_is_the_gap_over_the_squared_slope(options, floor, precision):
    with jax.enable_x64(precision == "float64"):
        p = {"w": jnp.array([1.0, -2.0, 3.0], precision), "b": jnp.array([[2.0], [0.5]], precision)}
        tx = gradtx.polyak_sgd(**options)
        state = tx.init(p)
        for _ in range(10):
            value, g = jax.value_and_grad(lambda p: loss(p, floor, jnp))(p)
            updates, state = tx.update(g, state, p, value=value)
            p = gradtx.apply_updates(p, updates)
        scaling = options.get("scaling", 1.0)
        want = by_formula(
            10,
            options.get("max_learning_rate", 1.0),
            scaling if callable(scaling) else lambda t: scaling,
            options.get("f_min", 0.0),
            options.get("eps", 0.0),
            floor,
            options.get("variant") == "sps+",
        )
        for k, x in want.items():  # float32: some ten roundings a step, of numbers near 1
            np.testing.assert_allclose(p[k], x, atol=1e-5 if precision == "float32" else 1e-12)


def test_where_the_linear_model_is_exact_one_step_ends_at_the_minimum():
    p = jnp.array([1.0, -1.0])
    tx = gradtx.scale_by_polyak()
    value, g = jax.value_and_grad(lambda p: jnp.sum(jnp.abs(p)))(p)
    updates, _ = tx.update(g, tx.init(p), p, value=value)
    np.testing.assert_allclose(p - updates, np.zeros(2), atol=1e-7)


def test_below_f_min_plus_stays_and_the_other_climbs():
    p = jnp.ones(2)
    for variant, sign in (("sps", 1.0), ("sps+", 0.0)):
        tx = gradtx.polyak_sgd(f_min=3.0, variant=variant)
        updates, _ = tx.update(p, tx.init(p), p, value=1.0)
        np.testing.assert_allclose(updates, sign * np.ones(2), rtol=1e-6)  # -(1 - 3) / 2, the norm rooted and squared


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_without_a_slope_nothing_moves(dtype):
    g = jnp.zeros(2, dtype)
    tx = gradtx.polyak_sgd()
    np.testing.assert_array_equal(tx.update(g, tx.init(g), g, value=jnp.ones((), dtype))[0], np.zeros(2))


def test_in_float16_the_norm_does_not_overflow():
    g = jnp.full(2, 300.0, "float16")
    tx = gradtx.scale_by_polyak()
    np.testing.assert_allclose(tx.update(g, tx.init(g), g, value=1800.0)[0], np.full(2, 3.0), rtol=1e-6)


def test_it_tells_a_monitor_its_rate():
    tx, g = gradtx.monitor(gradtx.polyak_sgd(scaling=0.5)), jnp.array([2.0])
    _, state = tx.update(g, tx.init(g), g, value=0.25)
    np.testing.assert_allclose(jax.tree.leaves(gradtx.metrics(state)["learning_rate"])[0], 0.5 * 0.25)


def test_a_complex_parameter_descends():
    tx, z = gradtx.polyak_sgd(), jnp.asarray(3 + 1j)
    state = tx.init(z)
    for _ in range(30):
        value, g = jax.value_and_grad(lambda z: jnp.abs(z - (1 + 2j)) ** 2)(z)
        updates, state = tx.update(g, state, z, value=value)
        z = gradtx.apply_updates(z, updates)
    assert abs(complex(z) - (1 + 2j)) < 1e-4


def test_without_the_loss_it_says_how_to_give_it():
    tx, g = gradtx.polyak_sgd(), jnp.ones(2)
    with pytest.raises(TypeError, match=r"`scale_by_polyak` reads the loss: .*value=loss"):
        tx.update(g, tx.init(g), g)


def test_another_variant_is_an_error():
    with pytest.raises(ValueError, match=r"`scale_by_polyak`: variant must be one of .*'sps\+'.*'sps2'"):
        gradtx.polyak_sgd(variant="sps2")

"""bfloat16 weights that learn: a float32 copy, the 16 bits that lack, or chance."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

WAYS = {
    "master": gradtx.master_weights,
    "split": gradtx.split_weights,
    "chance": lambda tx: gradtx.round_stochastically(tx, key=1),
}
ways = pytest.mark.parametrize("way", WAYS)
exact = pytest.mark.parametrize("way", ["master", "split"])


def descend(tx, p, steps, apply=gradtx.apply_updates, gradient=jnp.ones_like):
    def step(_, now):
        p, state = now
        updates, state = tx.update(jax.tree.map(gradient, p), state, p)
        return apply(p, updates), state

    return jax.jit(lambda p: jax.lax.fori_loop(0, steps, step, (p, tx.init(p))))(p)


@pytest.mark.parametrize("apply", [gradtx.apply_updates, optax.apply_updates], ids=["ours", "optax"])
@ways
def test_a_thousand_steps_of_a_thousandth_are_one(way, apply):
    p = {"w": jnp.ones((8, 8), jnp.bfloat16), "wide": jnp.ones(4)}
    plain, _ = descend(gradtx.sgd(1e-3), p, 1000, apply)
    assert (plain["w"] == 1).all()
    found, _ = descend(WAYS[way](gradtx.sgd(1e-3)), p, 1000, apply)
    assert found["w"].dtype == jnp.bfloat16
    # chance: each has a deviation of at most 0.001 sqrt(1000) times the root of a step's share of 2^-8: 0.05
    assert abs(float(found["w"].astype(jnp.float32).mean())) < 0.02
    np.testing.assert_allclose(found["wide"], 0, atol=1e-4)  # float32: 1000 roundings of 6e-8


@exact
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_the_copy_is_what_float32_would_be(way, dtype):
    if (way, dtype) == ("split", jnp.float16):
        pytest.skip("what float16 lacks is no part of float32's bits")
    rng = np.random.default_rng(0)
    p = jnp.asarray(rng.normal(size=(16, 16)), dtype)
    found, state = descend(WAYS[way](gradtx.adamw(1e-3)), p, 200, gradient=lambda x: jnp.full_like(x, 0.7))
    wanted, _ = descend(gradtx.adamw(1e-3), p.astype(jnp.float32), 200, gradient=lambda x: jnp.full_like(x, 0.7))
    if way == "master":
        np.testing.assert_allclose(state.weights, wanted, rtol=1e-4, atol=1e-5)  # 200 steps, fused otherwise
        np.testing.assert_array_equal(found, state.weights.astype(dtype))
    else:
        np.testing.assert_array_equal(found, halves_away(wanted))


def halves_away(x):
    """bfloat16 of float32, where the nearest are two the larger one."""
    bits = np.asarray(x).view(np.uint32).astype(np.uint64) + 0x8000
    return jnp.asarray((bits & 0xFFFF0000).astype(np.uint32).view(np.float32)).astype(jnp.bfloat16)


def test_halves_join_to_the_bit():
    """Every float32 is its bfloat16, halves away from 0, and 16 bits; also where the rounding carries far."""
    from gradtx.combine.split_weights import _moved, _whole

    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2**32, 4096, dtype=np.uint32)
    bits[:4] = [0x3F7F8000, 0x3F7F7FFF, 0x3FFFFFFF, 0]  # just below 1 and 2
    w = bits.view(np.float32)
    usual = np.isfinite(w) & (np.abs(w) < 3e38) & ((np.abs(w) > 1e-37) | (bits == 0))  # XLA may take smaller ones for 0
    w = np.where(usual, w, 1.0).astype(np.float32)
    step, low = _moved(jnp.asarray(w), jnp.zeros(w.shape, jnp.uint16), jnp.zeros(w.shape, jnp.float32))
    np.testing.assert_array_equal(np.asarray(_whole(low, step)).view(np.uint32), w.view(np.uint32))
    assert (np.asarray(step).view(np.uint32) & 0xFFFF == 0).all()


@pytest.mark.parametrize(("way", "bytes_each"), [("master", 4), ("split", 2), ("chance", 0)])
def test_what_it_costs(way, bytes_each):
    p = {"w": jnp.ones((64, 64), jnp.bfloat16), "wide": jnp.ones((64, 64)), "whole": jnp.arange(3)}
    plain = sum(x.nbytes for x in jax.tree.leaves(gradtx.sgd(0.1).init(p)))
    found = sum(x.nbytes for x in jax.tree.leaves(WAYS[way](gradtx.sgd(0.1)).init(p)))
    assert found - plain == 64 * 64 * bytes_each + (4 if way == "chance" else 0)


def test_chance_lands_on_a_neighbour_without_bias_and_differs_by_leaf_and_time():
    tx = gradtx.round_stochastically(gradtx.sgd(1.0), key=0)
    p = {"a": jnp.ones(50_000, jnp.bfloat16), "b": jnp.ones(50_000, jnp.bfloat16)}
    g = jax.tree.map(lambda x: jnp.full_like(x, -1e-3), p)
    updates, state = tx.update(g, tx.init(p), p)
    again, _ = tx.update(g, state, p)
    for x in jax.tree.leaves(updates):
        assert set(np.unique(x)) == {0.0, 2**-7}
    share = np.mean([np.mean(np.asarray(x)) for x in jax.tree.leaves(updates)])
    assert share == pytest.approx(1e-3, rel=0.04)  # 100,000 draws that are right with chance 0.128: deviation 0.8 %
    assert (updates["a"] != updates["b"]).any() and (updates["a"] != again["a"]).any()


@exact
def test_a_parameter_that_the_program_sets_is_taken(way):
    tx, p = WAYS[way](gradtx.sgd(1e-3)), jnp.ones(4, jnp.bfloat16)
    _, state = tx.update(jnp.ones(4), tx.init(p), p)
    updates, _ = tx.update(jnp.ones(4), state, 2 * p)
    np.testing.assert_allclose((2 * p).astype(jnp.float32) + updates, 2, atol=2**-6)


@ways
def test_a_parameter_without_gradient_stays(way):
    tx, p = WAYS[way](gradtx.adam(0.1)), {"a": jnp.ones(4, jnp.bfloat16), "b": jnp.ones(4, jnp.bfloat16)}
    updates, _ = tx.update({"a": None, "b": jnp.ones(4)}, tx.init(p), p)
    assert updates["a"] is None and (updates["b"] < 0).all()


@ways
def test_parameters_are_asked_for(way):
    tx, p = WAYS[way](gradtx.sgd(0.1)), jnp.ones(2, jnp.bfloat16)
    with pytest.raises(ValueError, match="reads the parameters"):
        tx.update(p, tx.init(p))

"""reset_every: momentum reset of Huang et al. 2025 (arXiv 2501.06842)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

G = [jnp.array([1.0, -2.0]) * scale for scale in (1.0, 3.0, -2.0, 0.5, 1.5, -1.0, 2.0)]


def walked(tx, grads=G):
    params, us = jnp.zeros(2), []
    state = tx.init(params)
    for g in grads:
        u, state = tx.update(g, state, params)
        us.append(u)
    return np.stack(us), state


def test_every_third_update_is_the_first_of_a_fresh_start():
    tx = gradtx.trace(0.9)
    us, state = walked(gradtx.reset_every(tx, 3))
    fresh = [walked(tx, G[i:j])[0] for i, j in ((0, 2), (2, 5), (5, 7))]
    np.testing.assert_array_equal(us, np.concatenate(fresh))
    assert state.count == len(G)


def test_time_goes_on_or_starts_over():
    """With counts that go on, bias corrections are those of t; else each period is a run of its own."""
    adam = gradtx.scale_by_adam(eps=0.0)
    us, state = walked(gradtx.reset_every(adam, 3))
    assert state.inner_state.count == len(G)
    # at the third update mu = (1 - b1) g and nu = (1 - b2) g^2
    want = (1 - 0.9) / (1 - 0.9**3) / np.sqrt((1 - 0.999) / (1 - 0.999**3)) * np.sign(G[2])
    np.testing.assert_allclose(us[2], want, rtol=1e-4)  # 1 - 0.999^3, whose digits are those of 0.003
    us, state = walked(gradtx.reset_every(adam, 3, restart_time=True))
    fresh = [walked(adam, G[i:j])[0] for i, j in ((0, 2), (2, 5), (5, 7))]
    np.testing.assert_array_equal(us, np.concatenate(fresh))
    assert state.inner_state.count == 2


def test_a_schedule_inside_goes_on():
    tx = gradtx.sgd(lambda t: jnp.where(t < 2, 1.0, 2.0), momentum=0.5)
    _, state = walked(gradtx.reset_every(tx, 2))
    assert state.inner_state["count"] == len(G)
    us, _ = walked(gradtx.reset_every(tx, 2), [jnp.ones(2)] * 4)
    np.testing.assert_array_equal(us[:, 0], [-1, -1, -3, -2])


def test_after_a_reset_updates_grow_as_a_cosine():
    tx = gradtx.reset_every(gradtx.identity(), 4, warmup_steps=2, warmup_from=0.25)
    us, _ = walked(tx, [jnp.ones(2)] * 9)
    warm = [1 - 0.75 * (1 + np.cos(np.pi * n / 3)) / 2 for n in (0, 1)]
    np.testing.assert_allclose(us[:, 0], [1, 1, 1, *warm, 1, 1, *warm], rtol=1e-6)  # one rounding or two


def test_without_a_reset_it_is_the_inner_one():
    tx = gradtx.adam(0.1)
    np.testing.assert_array_equal(walked(gradtx.reset_every(tx, 100, 50))[0], walked(tx)[0])


def test_codes_are_averages_and_keys_are_none():
    """Arrays of integers are reset, too; random keys go on."""
    key = jax.random.key(0)
    init = lambda p: {"codes": jnp.zeros(2, jnp.int8), "key": key}

    def update(u, state, params=None):
        return u, {"codes": state["codes"] + jnp.int8(1), "key": jax.random.split(state["key"], 1)[0]}

    _, state = walked(gradtx.reset_every(gradtx.GradientTransformation(init, update), 3), G[:4])
    np.testing.assert_array_equal(state.inner_state["codes"], [2, 2])
    assert not np.array_equal(jax.random.key_data(state.inner_state["key"]), jax.random.key_data(key))


def test_what_is_stored_in_few_digits_stays_so():
    tx = gradtx.reset_every(gradtx.trace(0.9, accumulator_dtype="bfloat16"), 2)
    _, state = walked(tx)
    assert state.inner_state.trace.dtype == jnp.bfloat16


def test_x_is_found_through_it():
    tx = gradtx.reset_every(gradtx.schedule_free_sgd(0.1), 100)
    p = jnp.ones(2)
    state = tx.init(p)
    np.testing.assert_allclose(gradtx.eval_params(tx, state, p), p, rtol=1e-6)  # (y - 0.1 y) / 0.9


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`reset_every`: period must .*, got 0"):
        gradtx.reset_every(gradtx.adam(0.1), 0)
    with pytest.raises(TypeError, match="`reset_every`: inner must be a gradient transformation"):
        gradtx.reset_every(3, 5)
    with pytest.raises(ValueError, match="`reset_every` reads the parameters"):
        tx = gradtx.reset_every(gradtx.adam(0.1), 5)
        tx.update(G[0], tx.init(G[0]))

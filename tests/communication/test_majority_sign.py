"""Majority votes, beside votes counted in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.collectives import collectives
from gradtx.communication.majority_sign import votes_dtype

from .replicas import SETTINGS, N, assert_same_on_all, oracle, program, run


def majority():
    def rule(grads, params):
        votes = {k: sum(np.sign(g[k]) for g in grads) for k in grads[0]}
        return [{k: -0.1 * np.sign(v) for k, v in votes.items()}] * N

    return rule


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_the_sign_that_most_devices_have(setting):
    _, updates, _ = run(gradtx.chain(gradtx.majority_sign("data"), gradtx.scale_by_learning_rate(0.1)), setting)
    wanted = oracle(majority)
    for name in wanted:
        np.testing.assert_array_equal(updates[name], wanted[name])  # votes are whole numbers
    assert any((u == 0).any() for u in updates.values())  # a draw
    assert_same_on_all(updates)


def test_momentum_before_the_vote_is_of_each_device():
    tx = gradtx.chain(gradtx.ema(0.9), gradtx.majority_sign("data"), gradtx.scale_by_learning_rate(0.1))
    _, updates, state = run(tx)
    assert_same_on_all(updates)
    moments = state["ema"].ema["matrix"]
    assert not np.array_equal(moments[0], moments[1])


def test_one_device_has_its_own_sign():
    g = jnp.array([3.0, -0.5, 0.0, jnp.nan, jnp.inf])
    assert gradtx.majority_sign().update(g, gradtx.EmptyState())[0].tolist() == [1.0, -1.0, 0.0, 0.0, 1.0]
    assert gradtx.majority_sign().update(jnp.array([2 - 3j]), gradtx.EmptyState())[0].tolist() == [1 - 1j]


def test_votes_of_complex_numbers_and_nan():
    g = jnp.array([1 - 1j, 1 - 1j, -1 - 1j, jnp.nan, 1 + 0j, 0j, 0j, 0j])
    tx = gradtx.majority_sign("data")
    assert jax.pmap(lambda g: tx.update(g, gradtx.EmptyState())[0], axis_name="data")(g).tolist() == [1 - 1j] * 8


def test_a_vote_is_a_byte():
    assert [votes_dtype(n) for n in (1, 127, 128, 32767, 32768)] == [jnp.int8] * 2 + [jnp.int16] * 2 + [jnp.int32]
    compiled = program(gradtx.majority_sign("data"))
    assert {kind: tuple(x) for kind, x in collectives(compiled).items()} == {"all-reduce": (1, 256 * 256 + 256)}

"""The largest entries and the memory of the others, beside NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.collectives import collectives

from .replicas import SETTINGS, SHAPES, N, assert_nothing_lost, assert_same_on_all, mean, oracle, program, run

TX = gradtx.chain(gradtx.top_k(0.2, "data"), gradtx.scale_by_learning_rate(0.1))


def largest(fraction):
    def method():
        errors = [{k: np.zeros(shape) for k, shape in SHAPES.items()} for _ in range(N)]

        def rule(grads, params):
            sent = []
            for e, g in zip(errors, grads, strict=True):
                chosen = {}
                for k in g:
                    a = (e[k] + g[k]).ravel()
                    s = np.zeros_like(a)
                    places = np.argsort(-np.abs(a))[: math.ceil(fraction * a.size)]
                    s[places] = a[places]
                    e[k], chosen[k] = (a - s).reshape(SHAPES[k]), s.reshape(SHAPES[k])
                sent.append(chosen)
            return [{k: -0.1 * u for k, u in mean(sent).items()}] * N

        return rule

    return method


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_is_the_mean_of_the_largest_entries(setting):
    _, updates, _ = run(TX, setting)
    wanted = oracle(largest(0.2))
    for name in wanted:
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-12, atol=1e-15)  # sums of eight in other orders
    assert_same_on_all(updates)


def test_in_float32_all_devices_agree_to_the_bit():
    params, updates, state = run(TX, dtype="float32")
    assert_same_on_all((params, updates))
    assert not np.array_equal(state["top_k"].error["matrix"][0], state["top_k"].error["matrix"][1])


def test_nothing_is_lost():
    """What was sent and what is left sum to the gradients."""
    params, updates, state = run(gradtx.top_k(0.2, "data"))
    assert_nothing_lost(SHAPES, params, updates, state.error, atol=1e-13)  # some tens of roundings of 1e-16


def test_all_entries_are_the_mean():
    _, updates, state = run(gradtx.chain(gradtx.top_k(1.0, "data"), gradtx.scale_by_learning_rate(0.1)))
    wanted = oracle(lambda: lambda grads, params: [{k: -0.1 * g for k, g in mean(grads).items()}] * N)
    for name in wanted:
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-12, atol=1e-15)  # sums of eight in other orders
    assert all((e == 0).all() for e in jax.tree.leaves(state["top_k"].error))


def test_one_device_keeps_what_it_does_not_send():
    tx, g = gradtx.top_k(0.5), jnp.array([1.0, -4.0, 3.0, -2.0])
    u, state = tx.update(g, tx.init(g))
    assert u.tolist() == [0, -4, 3, 0] and state.error.tolist() == [1, 0, 0, -2]
    u, state = tx.update(g, state)  # of 2, -4, 3, -4
    assert u.tolist() == [0, -4, 0, -4] and state.error.tolist() == [2, 0, 3, 0]


def test_a_hundredth_is_sent_as_values_and_places():
    sent = math.ceil(0.01 * 256 * 256) + math.ceil(0.01 * 256)
    assert {kind: x.bytes for kind, x in collectives(program(gradtx.top_k(0.01, "data"))).items()} == {
        "all-gather": N * sent * 8
    }
    assert collectives(program(gradtx.top_k(0.01, "data")))["all-gather"].operations <= 2
    assert N * sent * 8 < 4 * (256 * 256 + 256) / 6  # a sixth of what the mean sends


@pytest.mark.parametrize(("fraction", "error"), [(0.0, ValueError), (1.5, ValueError), (None, TypeError)])
def test_a_fraction_is_above_0_and_at_most_1(fraction, error):
    with pytest.raises(error, match="`top_k`: fraction"):
        gradtx.top_k(fraction)

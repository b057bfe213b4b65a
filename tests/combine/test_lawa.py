"""lawa: Kaddour 2022 (arXiv 2209.14981): the mean of the latest checkpoints."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

from .test_average import INNER, P, walked


@pytest.fixture(autouse=True)
def eagerly(op_by_op):
    """Small arrays."""


@pytest.mark.parametrize(("every", "window"), [(1, 1), (1, 3), (2, 2), (3, 6), (4, 2)])
def test_the_mean_is_of_the_latest_checkpoints(every, window):
    way, evaluated = walked(gradtx.lawa(INNER, every, window), 13)
    for name in P:
        for t, found in enumerate(evaluated[name]):
            latest = way[name][every : t + 1 : every][-window:]
            want = latest.mean(axis=0) if len(latest) else way[name][t]
            np.testing.assert_allclose(found, want, rtol=1e-12)


def test_the_updates_are_those_inside_to_the_bit():
    for inner in (INNER, gradtx.adamw(0.1)):
        alone = walked(inner, 5, dtype="float32")[0]
        jax.tree.map(np.testing.assert_array_equal, walked(gradtx.lawa(inner, 2, 2), 5, dtype="float32")[0], alone)


def test_storage_and_mask():
    tx = gradtx.lawa(INNER, 1, 2, mask="w", average_dtype="bfloat16")
    state = tx.init(P)
    assert state.checkpoints["b"] is None
    assert state.checkpoints["w"].dtype == jnp.bfloat16 and state.checkpoints["w"].shape == (2, 2, 2)
    way, evaluated = walked(tx, 4)
    np.testing.assert_array_equal(evaluated["b"], way["b"])
    np.testing.assert_allclose(evaluated["w"][-1], way["w"][-2:].mean(0), rtol=1e-2)  # bfloat16 keeps 8 bits


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`lawa`: every must .*, got 0"):
        gradtx.lawa(INNER, 0)
    with pytest.raises(ValueError, match=r"`lawa`: window must .*, got 0"):
        gradtx.lawa(INNER, 1, 0)

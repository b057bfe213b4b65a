"""signed_by_gradient: Cao, Li, Song 2024 (arXiv 2412.17107)."""

import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check_same


def test_what_has_the_gradients_signs_already_stays():
    check_same(gradtx.signed_by_gradient(gradtx.scale_by_rms()), gradtx.scale_by_rms())


def test_an_entry_without_a_gradient_does_not_move():
    tx, p = gradtx.grams(0.1), jnp.ones(2)
    _, state = tx.update(jnp.array([1.0, -1.0]), tx.init(p), p)
    updates, _ = tx.update(jnp.array([0.0, 1.0]), state, p)
    assert updates[0] == 0
    assert updates[1] < 0


def test_foreign_methods_have_their_lengths_too():
    class Foreign:
        init = staticmethod(lambda params: ())
        update = staticmethod(lambda updates, state, params=None: (3 * jnp.ones_like(updates), state))

    tx, p = gradtx.signed_by_gradient(Foreign()), jnp.ones(3)
    updates, _ = tx.update(jnp.array([-2.0, 0.0, 5.0]), tx.init(p), p)
    np.testing.assert_array_equal(updates, [-3.0, 0.0, 3.0])


def test_the_average_of_a_method_inside_is_evaluated():
    inner = gradtx.schedule_free_sgd(0.1)
    p = jnp.ones(3)
    tx = gradtx.signed_by_gradient(inner)
    _, state = tx.update(jnp.ones(3), tx.init(p), p)
    np.testing.assert_array_equal(tx.eval_params(state, p), inner.eval_params(state, p))


def test_it_wraps_a_transformation():
    with pytest.raises(TypeError, match="`signed_by_gradient`: inner must be a gradient transformation"):
        gradtx.signed_by_gradient(0.1)

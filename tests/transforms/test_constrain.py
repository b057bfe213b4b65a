"""keep_params_nonnegative: no step ends below 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


@both_precisions
def test_steps_below_zero_end_at_zero(precision):
    rule = leafwise(lambda p: lambda g, p, t: np.maximum(p + g, 0) - p)
    check(gradtx.keep_params_nonnegative(), rule, precision)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_after_sgd_parameters_never_are_negative(dtype):
    tx = gradtx.chain(gradtx.sgd(0.3), gradtx.keep_params_nonnegative())

    def step(carry, g):
        p, state = carry
        updates, state = tx.update(g, state, p)
        p = gradtx.apply_updates(p, updates)
        return (p, state), p

    p = jnp.ones(50, dtype)
    grads = jnp.asarray(np.random.default_rng(0).normal(size=(30, 50)), dtype)
    _, seen = jax.lax.scan(step, (p, tx.init(p)), grads)
    assert np.all(seen >= 0) and np.any(seen == 0) and np.any(seen > 1)


def test_what_stays_above_zero_changes_no_bit():
    tx, p, u = gradtx.keep_params_nonnegative(), jnp.array([1.0, 2.0]), jnp.array([-0.1, 1e-9])
    np.testing.assert_array_equal(tx.update(u, tx.init(p), p)[0], u)


def test_a_negative_parameter_comes_back_to_zero():
    tx, p = gradtx.keep_params_nonnegative(), jnp.array([-2.0, -2.0])
    np.testing.assert_array_equal(tx.update(jnp.array([1.0, 3.0]), tx.init(p), p)[0], [2.0, 3.0])


def test_a_complex_parameter_is_an_error():
    tx, p = gradtx.keep_params_nonnegative(), jnp.ones(2, "complex64")
    with pytest.raises(TypeError, match=r"`keep_params_nonnegative`: a complex number has no sign"):
        tx.update(p, tx.init(p), p)


def test_without_params_it_says_that_it_reads_them():
    tx, p = gradtx.keep_params_nonnegative(), jnp.ones(2)
    with pytest.raises(ValueError, match=r"`keep_params_nonnegative` reads the parameters"):
        tx.update(p, tx.init(p))

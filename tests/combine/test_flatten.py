"""flatten: one vector per dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

PARAMS = {"kernel": jnp.arange(6.0).reshape(2, 3), "scalar": jnp.array(-2.0), "bias": jnp.array([1.0, 5.0])}


def test_the_inner_one_is_given_one_vector_in_the_order_of_the_leaves():
    seen = []
    look = gradtx.stateless(lambda updates, params: seen.append((updates, params)) or updates)
    tx = gradtx.flatten(look)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    jax.tree.map(np.testing.assert_array_equal, updates, PARAMS)
    ((vector, params),) = seen
    np.testing.assert_array_equal(vector, [1, 5, 0, 1, 2, 3, 4, 5, -2])  # bias, kernel, scalar
    np.testing.assert_array_equal(params, vector)


def test_a_bound_per_leaf_becomes_one_of_all_as_in_optax():
    ours, theirs = (lib.flatten(lib.chain(lib.clip_by_block_rms(0.5), lib.scale_by_adam())) for lib in (gradtx, optax))
    state, their_state = ours.init(PARAMS), theirs.init(PARAMS)
    for _ in range(3):
        updates, state = ours.update(PARAMS, state, PARAMS)
        their_updates, their_state = theirs.update(PARAMS, their_state, PARAMS)
        # Optax's 1 - 0.999^t is off by 7e-6 in float32
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5), updates, their_updates)


def test_each_dtype_has_a_vector_of_its_own():
    params = {"half": jnp.ones((2, 2), jnp.bfloat16), "full": jnp.ones(3), "complex": jnp.ones(2, jnp.complex64)}
    tx = gradtx.flatten(gradtx.trace(0.9))
    slots = jax.tree.leaves(tx.init(params))
    assert {(x.shape, x.dtype.name) for x in slots} == {((7,), "float32"), ((2,), "complex64")}
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, params)


def test_a_parameter_without_a_gradient_stays():
    tx = gradtx.flatten(gradtx.sgd(0.1))
    grads = PARAMS | {"bias": None}
    updates, _ = tx.update(grads, tx.init(PARAMS), PARAMS)
    assert updates["bias"] is None
    np.testing.assert_allclose(updates["scalar"], 0.2, rtol=1e-6)  # float32


def test_no_parameters_are_no_vector():
    tx = gradtx.flatten(gradtx.adam(0.1))
    assert tx.update({}, tx.init({}), {})[0] == {}


def test_what_is_no_transformation_is_an_error():
    with pytest.raises(TypeError, match=r"`flatten`.*inner"):
        gradtx.flatten(0.1)

"""hutchinson_estimator_diag_hessian: Hutchinson 1989; Bekas, Kokiopoulou, Saad 2007."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

A = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
A = A + A.T
P = {"a": jnp.ones(3), "b": jnp.ones(())}


def quadratic(p):
    x = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(p)])
    return x @ A @ x / 2


def test_the_estimate_of_a_diagonal_hessian_is_exact():
    loss = lambda p: jnp.sum(p["a"] ** 2 * jnp.array([1.0, -2.0, 3.0])) + p["b"] ** 4
    tx = gradtx.hutchinson_estimator_diag_hessian()
    h, _ = tx.update(P, tx.init(P), P, obj_fn=loss)
    np.testing.assert_allclose(h["a"], [2.0, -4.0, 6.0], rtol=1e-6)  # float32
    np.testing.assert_allclose(h["b"], 12.0, rtol=1e-6)


def test_the_mean_of_many_is_the_diagonal():
    tx = gradtx.hutchinson_estimator_diag_hessian(3)
    step = lambda state, _: tx.update(P, state, P, obj_fn=quadratic)[::-1]
    _, h = jax.lax.scan(step, tx.init(P), length=4000)
    mean = np.append(np.mean(h["a"], axis=0), np.mean(h["b"]))
    error = np.sqrt(np.sum((A - np.diag(np.diag(A))) ** 2, axis=1) / 4000)
    assert np.all(np.abs(mean - np.diag(A)) < 4 * error)  # four standard deviations


def test_the_signs_are_a_function_of_key_time_and_place():
    p = {"a": jnp.ones((3, 50)), "b": jnp.ones((3, 50))}
    tx = gradtx.hutchinson_estimator_diag_hessian(1)
    first = tx.signs(p, jnp.int32(0))
    assert np.all(np.abs(first["a"]) == 1) and np.any(first["a"] != first["b"])
    for other in (tx.signs(p, jnp.int32(1)), gradtx.hutchinson_estimator_diag_hessian(2).signs(p, jnp.int32(0))):
        assert np.any(first["a"] != other["a"])
    again = gradtx.hutchinson_estimator_diag_hessian(jax.random.key(1)).signs(p, jnp.int32(0))
    np.testing.assert_array_equal(first["a"], again["a"])


def test_no_seed_is_seed_zero_and_the_key_is_no_state():
    assert gradtx.hutchinson_estimator_diag_hessian(None) == gradtx.hutchinson_estimator_diag_hessian(0)
    assert isinstance(gradtx.hutchinson_estimator_diag_hessian().init(P), gradtx.ClockState)


def test_the_gradients_function_will_do_and_the_value_function_too():
    tx = gradtx.hutchinson_estimator_diag_hessian()
    state = tx.init(P)
    functions = ({"obj_fn": quadratic}, {"value_fn": quadratic}, {"grad_fn": jax.grad(quadratic)})
    found = [tx.update(P, state, P, **extra)[0]["a"] for extra in functions]
    for h in found[1:]:
        np.testing.assert_array_equal(found[0], h)


def test_a_complex_parameter_is_a_pair_of_reals():
    p = jnp.array([1 + 2j, -1j])
    tx = gradtx.hutchinson_estimator_diag_hessian()
    h, _ = tx.update(p, tx.init(p), p, obj_fn=lambda z: jnp.sum(z.real**2 + 3 * z.imag**2))
    np.testing.assert_allclose(h, [4.0, 4.0], rtol=1e-6)  # the mean of 2 and 6; float32


def test_frozen_and_masked_parameters_and_integers_are_filled_in():
    p = {"a": jnp.ones(3), "b": jnp.float32(2), "n": jnp.int32(3)}
    loss = lambda p: p["n"] * p["b"] * jnp.sum(p["a"] ** 2)
    g = {"a": jnp.ones(3), "b": None, "n": jnp.int32(0)}
    tx = gradtx.hutchinson_estimator_diag_hessian()
    h, _ = tx.update(g, tx.init(p), p, obj_fn=loss)
    np.testing.assert_array_equal(h["a"], np.full(3, 12.0))
    masked = gradtx.masked(tx, "a")
    h, _ = masked.update(jax.tree.map(jnp.ones_like, p), masked.init(p), p, obj_fn=loss)
    np.testing.assert_array_equal(h["a"], np.full(3, 12.0))


def test_it_is_made_in_float32_of_narrow_parameters():
    p = jnp.ones(3, jnp.bfloat16)
    tx = gradtx.hutchinson_estimator_diag_hessian()
    h, _ = tx.update(p, tx.init(p), p, obj_fn=lambda p: jnp.sum(p**2 * 1.001))
    np.testing.assert_allclose(h, np.full(3, 2.002), rtol=1e-6)  # bfloat16 has 2


def test_without_a_function_or_parameters_it_says_what_to_do():
    tx = gradtx.hutchinson_estimator_diag_hessian()
    with pytest.raises(ValueError, match=r"`hutchinson_estimator_diag_hessian` reads the function.*obj_fn=loss"):
        tx.update(P, tx.init(P), P)
    with pytest.raises(ValueError, match="`hutchinson_estimator_diag_hessian` reads the parameters"):
        tx.update(P, tx.init(P))
    with pytest.raises(TypeError, match="random_seed must be an int or a key"):
        gradtx.hutchinson_estimator_diag_hessian("seed")

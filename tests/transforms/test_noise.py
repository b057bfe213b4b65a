"""add_noise: Neelakantan et al. 2015 (arXiv 1511.06807), equation 1: variance eta / (1 + t)^gamma."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

SIZE = 100_000


def noise(steps, eta=0.5, gamma=0.55, key=0, shape=(SIZE,)):
    """What is added to a gradient of zeros, step after step."""
    tx = gradtx.add_noise(eta, gamma, jax.random.key(key))
    p = jnp.zeros(shape)
    state, history = tx.init(p), []
    for _ in range(steps):
        updates, state = tx.update(p, state, p)
        history.append(np.asarray(updates, np.float64))
    return np.stack(history)


def test_the_variance_falls_as_the_formula_says():
    """The sample variance of n normals is off by sqrt(2 / n) of it; five of those are seen once in two million."""
    sample = noise(10)
    for t in range(10):
        want = 0.5 / (1 + t) ** 0.55
        assert abs(sample[t].var() / want - 1) < 5 * np.sqrt(2 / SIZE)
        assert abs(sample[t].mean()) < 5 * np.sqrt(want / SIZE)


def test_the_noise_is_normal():
    z = noise(1, eta=1.0)[0]
    for bound, share in [(1.0, 0.682689), (2.0, 0.954500), (3.0, 0.997300)]:
        spread = np.sqrt(share * (1 - share) / SIZE)
        assert abs(np.mean(np.abs(z) < bound) - share) < 5 * spread


def test_every_step_and_every_leaf_has_noise_of_its_own():
    first, second = noise(2, gamma=0.0)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(SIZE)
    tx = gradtx.add_noise(1.0, 0.0, jax.random.key(0))
    p = {"a": jnp.zeros(SIZE), "b": jnp.zeros(SIZE)}
    updates, _ = tx.update(p, tx.init(p), p)
    assert abs(np.corrcoef(updates["a"], updates["b"])[0, 1]) < 5 / np.sqrt(SIZE)


def test_one_key_is_one_noise_and_another_key_another():
    np.testing.assert_array_equal(noise(3, key=1, shape=(5,)), noise(3, key=1, shape=(5,)))
    assert not np.array_equal(noise(3, key=1, shape=(5,)), noise(3, key=2, shape=(5,)))


def test_the_noise_is_added_to_the_gradient():
    g = jnp.arange(5.0)
    tx = gradtx.add_noise(0.5, 0.55, jax.random.key(3))
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_allclose(updates - g, noise(1, key=3, shape=(5,))[0], atol=1e-6)  # float32 at size 5


def test_without_variance_the_gradient_changes_no_bit():
    g = jnp.array([1e-20, -3.0])
    tx = gradtx.add_noise(0.0, 0.55, jax.random.key(0))
    updates, _ = tx.update(g, tx.init(g), g)
    np.testing.assert_array_equal(updates, g)


def test_a_complex_gradient_has_noise_of_the_given_variance_in_both_parts():
    """A complex number is a pair of reals."""
    tx = gradtx.add_noise(0.5, 0.0, jax.random.key(0))
    p = jnp.zeros(SIZE, jnp.complex64)
    updates, _ = tx.update(p, tx.init(p), p)
    for part in (np.real(updates), np.imag(updates)):
        assert abs(np.asarray(part, np.float64).var() / 0.5 - 1) < 5 * np.sqrt(2 / SIZE)


def test_a_negative_variance_is_an_error_that_names_it():
    with pytest.raises(ValueError, match=r"`add_noise`.*eta.*-1\.0"):
        gradtx.add_noise(-1.0, 0.55, jax.random.key(0))


def test_no_key_is_an_error_when_it_is_needed_and_not_a_default_key():
    tx = gradtx.add_noise(0.1, 0.55)
    state = tx.init(jnp.ones(3))
    with pytest.raises(TypeError, match=r"`add_noise`: key must be an int or a key"):
        tx.update(jnp.ones(3), state)


def test_seed_is_an_older_name_of_key():
    assert gradtx.add_noise(0.1, 0.55, seed=3) == gradtx.add_noise(0.1, 0.55, 3)
    assert repr(gradtx.add_noise(0.1, 0.55, seed=3)) == "add_noise(eta=0.1, gamma=0.55, key=3)"
    with pytest.raises(ValueError, match=r"`add_noise`: seed .*key"):
        gradtx.add_noise(0.1, 0.55, 3, seed=3)

"""noisy_sgd: Neelakantan et al. 2015. The noise itself is proved in tests/transforms/test_noise.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import check_same


def test_it_is_sgd_on_noisy_gradients():
    assert gradtx.noisy_sgd(0.1, key=3) == gradtx.chain(gradtx.add_noise(0.01, 0.55, 3), gradtx.sgd(0.1))


def test_without_variance_it_is_sgd():
    check_same(gradtx.noisy_sgd(0.1, eta=0.0, key=0), gradtx.sgd(0.1))


def test_the_variance_of_the_steps_falls_as_the_formula_says():
    """The sample variance of n normals is off by sqrt(2 / n) of it; five of those are seen once in two million."""
    n = 20_000
    tx, g = gradtx.noisy_sgd(0.5, 0.2, 1.0, key=jax.random.key(1)), jnp.zeros(n)
    state = tx.init(g)
    for t in range(10):
        updates, state = tx.update(g, state)
        assert abs(np.var(updates) / (0.25 * 0.2 / (1 + t)) - 1) < 5 * np.sqrt(2 / n)


def test_a_run_resumed_sees_the_noise_that_it_would_have_seen():
    tx, g = gradtx.noisy_sgd(0.1, key=1), jnp.ones(4)
    state = tx.init(g)
    for _ in range(3):
        _, state = tx.update(g, state)
    again = jax.tree.map(jnp.asarray, jax.device_get(state))
    np.testing.assert_array_equal(tx.update(g, state)[0], tx.update(g, again)[0])


def test_no_key_is_an_error():
    with pytest.raises(TypeError, match=r"`add_noise`: key must be an int or a key"):
        gradtx.noisy_sgd(0.1).update({}, gradtx.noisy_sgd(0.1).init({}))

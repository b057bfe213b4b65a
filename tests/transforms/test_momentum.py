"""trace and ema: sums and means of the updates so far."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


def trace(decay, nesterov=False):
    """v = d v + g; u = v, or g + d v."""
    decay = decay if callable(decay) else lambda t, decay=decay: decay

    @leafwise
    def rule(p):
        v = np.zeros_like(p)

        def step(g, p, t):
            nonlocal v
            v = decay(t - 1) * v + g
            return g + decay(t - 1) * v if nesterov else v

        return step

    return rule


def ema(decay, debias=True):
    """m = d m + (1 - d) g; u = m, or m / (1 - d^t)."""

    @leafwise
    def rule(p):
        m = np.zeros_like(p)

        def step(g, p, t):
            nonlocal m
            m = decay * m + (1 - decay) * g
            return m / (1 - decay**t) if debias else m

        return step

    return rule


# These stand without a rate, so the parameters grow by a gradient a step: 0.01 of them keeps the loop from running off.
LOOSE = 0.01


@both_precisions
@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9])
def test_trace_adds_the_gradient_to_the_faded_sum(decay, nesterov, precision):
    check(gradtx.trace(decay, nesterov), trace(decay, nesterov), precision, coupling=LOOSE)


@both_precisions
@pytest.mark.parametrize("debias", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.5, 0.99])
def test_ema_is_the_mean_with_exponential_weights(decay, debias, precision):
    check(gradtx.ema(decay, debias), ema(decay, debias), precision, coupling=LOOSE)


@both_precisions
def test_ema_debiases_unless_told_otherwise(precision):
    check(gradtx.ema(0.9), ema(0.9, debias=True), precision, coupling=LOOSE)


@pytest.mark.parametrize("nesterov", [False, True])
def test_a_scheduled_decay_takes_the_value_of_its_step(nesterov):
    def decay(t):
        return 0.9 - 0.5 / (t + 1)

    check(gradtx.chain(gradtx.trace(decay, nesterov)), trace(decay, nesterov), coupling=LOOSE)


def test_alone_it_keeps_no_time_and_says_so():
    state = gradtx.trace(lambda t: 0.9).init(jnp.ones(2))
    assert state._fields == ("trace",)
    with pytest.raises(ValueError, match=r"`trace`: decay is a schedule.*`chain\(trace\(...\)\)`"):
        gradtx.trace(lambda t: 0.9).update(jnp.ones(2), state)


def test_a_debiased_mean_of_equal_gradients_is_the_gradient_at_every_step():
    tx = gradtx.ema(0.999)
    g = jnp.array([1.0, -3.0])

    def step(state, _):
        updates, state = tx.update(g, state)
        return state, updates

    _, updates = jax.lax.scan(step, tx.init(g), None, length=2000)
    np.testing.assert_allclose(updates, np.tile(g, (2000, 1)), rtol=5e-5)  # float32: 2000 roundings of up to 6e-8


@pytest.mark.parametrize("name", ["trace", "ema"])
def test_a_decay_of_zero_forgets_even_a_spike(name):
    """0 m + 1 g is g to the last bit, however large m was."""
    tx = getattr(gradtx, name)(0.0)
    state = tx.init(jnp.zeros(2))
    for g in ([1e8, -1e8], [1.0, 1e-3], [0.0, 0.1]):
        updates, state = tx.update(jnp.array(g), state)
        np.testing.assert_array_equal(updates, jnp.array(g))


@pytest.mark.parametrize("build", [lambda **kw: gradtx.trace(0.9, **kw), lambda **kw: gradtx.ema(0.9, **kw)])
def test_an_accumulator_keeps_the_precision_it_was_given_and_is_summed_in_a_wider_one(build):
    p = jnp.ones(3)
    tx, plain = build(accumulator_dtype=jnp.bfloat16), build()
    state, wide = tx.init(p), plain.init(p)
    for _ in range(5):
        updates, after = tx.update(p, state, p)
        want, wide = plain.update(p, wide, p)
        assert jax.tree.map(lambda x: x.dtype, state) == jax.tree.map(lambda x: x.dtype, after)
        assert any(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(after))
        assert updates.dtype == jnp.float32
        np.testing.assert_allclose(updates, want, rtol=3e-2)  # five roundings to 8 bits
        state = after


@pytest.mark.parametrize("decay", [-0.1, 2.0])
@pytest.mark.parametrize("name", ["trace", "ema"])
def test_a_decay_outside_zero_to_one_is_an_error(name, decay):
    with pytest.raises(ValueError, match=rf"`{name}`.*decay.*{decay}"):
        getattr(gradtx, name)(decay)


@pytest.mark.parametrize("name", ["trace", "ema"])
def test_a_gradient_of_the_wrong_shape_is_an_error_that_names_leaf_and_shapes(name):
    tx = getattr(gradtx, name)(0.9)
    state = tx.init({"a": jnp.ones((3, 4))})
    with pytest.raises(ValueError, match=rf"`{name}`.*a.*\(4,\).*\(3, 4\)"):
        tx.update({"a": jnp.ones(4)}, state, {"a": jnp.ones((3, 4))})

"""decay_weights: decay of the weight that a step leads to."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check, leafwise


@both_precisions
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("of", ["new", "old"])
def test_the_weight_after_the_step_decays(of, cautious, precision):
    def method(p):
        def step(g, p, t):
            u = -0.1 * g
            lost = 0.4 * 0.05 * (p + u if of == "new" else p)
            return u - (np.where((np.conj(p) * u).real < 0, lost, 0) if cautious else lost)

        return step

    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.decay_weights(0.05, 0.4, cautious=cautious, of=of))
    leaves = ("dense/kernel",) if precision == "float64" else ()
    check(tx, leafwise(method), precision, complex_leaves=leaves)


def test_it_may_start_later():
    p, tx = jnp.ones(2), gradtx.decay_weights(0.5, start=3)
    state = tx.init(p)
    for fraction in (0.0, 0.0, 0.5, 0.5):
        u, state = tx.update(jnp.zeros(2), state, p)
        np.testing.assert_allclose(u, -fraction)


def test_the_mask_chooses_what_decays():
    p = {"a": jnp.ones(3), "b": jnp.ones(3)}
    tx = gradtx.decay_weights(0.5, mask="a")
    u, _ = tx.update({"a": jnp.zeros(3), "b": jnp.zeros(3)}, tx.init(p), p)
    np.testing.assert_allclose(u["a"], -0.5)
    np.testing.assert_array_equal(u["b"], 0)


def test_of_the_old_weight_it_is_adamws_decay():
    p, g = jnp.array([1.0, -2.0, 3.0]), jnp.array([0.3, 0.2, -0.1])
    after = gradtx.chain(gradtx.sgd(0.1), gradtx.decay_weights(0.05, 0.1, of="old"))
    before = gradtx.chain(gradtx.add_decayed_weights(0.05), gradtx.sgd(0.1))
    np.testing.assert_allclose(after.update(g, after.init(p), p)[0], before.update(g, before.init(p), p)[0], atol=3e-7)


def test_rate_and_decay_follow_schedules():
    p, tx = jnp.ones(2), gradtx.decay_weights(0.5, gradtx.linear_schedule(1.0, 0.0, 2))
    state = tx.init(p)
    for fraction in (0.5, 0.25, 0.0):
        u, state = tx.update(jnp.zeros(2), state, p)
        np.testing.assert_allclose(u, -fraction)


def test_after_a_projection_it_decays_what_that_decided():
    p, g = jnp.ones((2, 2)), jnp.array([[0.5, -0.5], [1.0, 0.0]])
    tx = gradtx.chain(gradtx.sgd(0.1), gradtx.keep_norm(), gradtx.decay_weights(0.1))
    new = gradtx.apply_updates(p, tx.update(g, tx.init(p), p)[0])
    np.testing.assert_allclose(np.linalg.norm(new), 0.9 * 2, rtol=1e-6)


RATE = gradtx.linear_schedule(0.5, 0.0, 8)
COUPLED = {
    "rate": lambda rate: rate,
    "schedule": lambda rate: rate / 0.5,
    "none": lambda rate: 1.0,
    "squared": lambda rate: rate**2 / 0.5,
}


def adamw(coupling, cautious, weight_decay=0.1, b1=0.9, b2=0.999):
    """Adam's step and, decoupled, the decay of the old weight times what the coupling makes of the rate."""

    @leafwise
    def rule(p):
        m, v = np.zeros_like(p), np.zeros_like(p)

        def step(g, p, t):
            nonlocal m, v
            rate = 0.5 * max(1 - (t - 1) / 8, 0)
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g**2
            u = rate * m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + 1e-8)
            lost = weight_decay * COUPLED[coupling](rate) * p
            return -u - (np.where(u * p > 0, lost, 0) if cautious else lost)

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("cautious", [False, True])
@pytest.mark.parametrize("coupling", COUPLED)
def test_a_decay_follows_the_rate_in_one_of_four_ways(coupling, cautious, precision):
    tx = gradtx.adamw(RATE, weight_decay=0.1, decay_coupling=coupling, peak_learning_rate=0.5, cautious_decay=cautious)
    check(tx, adamw(coupling, cautious), precision, steps=7, coupling=0.5)  # then the rate is 0


@pytest.mark.parametrize("coupling", COUPLED)
def test_it_follows_in_one_compiled_step(coupling):
    """It was frozen in others' captured graphs: here the count is an argument, and so is the rate."""
    p = jnp.ones(3)
    traces = []

    @jax.jit
    def step(tx, state, p):
        traces.append(1)
        return tx.update(jnp.zeros(3), state, p)

    build = lambda peak: gradtx.adamw(
        gradtx.linear_schedule(peak, 0.0, 4), weight_decay=0.5, decay_coupling=coupling, peak_learning_rate=peak
    )
    for peak in (0.5, 0.25):
        state = build(peak).init(p)
        for t in range(4):
            updates, state = step(build(peak), state, p)
            rate = peak * (1 - t / 4)
            want = {"rate": rate, "schedule": rate / peak, "none": 1.0, "squared": rate**2 / peak}[coupling]
            np.testing.assert_allclose(updates, -0.5 * want, rtol=1e-6)
    assert len(traces) == 1


def test_of_a_constant_rate_the_peak_is_the_rate():
    p = jnp.ones(2)
    for coupling, want in (("rate", 0.05), ("schedule", 0.5), ("none", 0.5), ("squared", 0.05)):
        tx = gradtx.decay_weights(0.5, 0.1, coupling=coupling)
        np.testing.assert_allclose(tx.update(jnp.zeros(2), tx.init(p), p)[0], -want, rtol=1e-6)


def test_couplings_leave_the_state_as_it_is():
    structures = {
        jax.tree.structure(gradtx.adamw(0.1, decay_coupling=coupling).init(jnp.ones(2))) for coupling in COUPLED
    }
    assert len(structures) == 1


def test_a_peak_that_cannot_be_known_is_an_error_that_asks_for_it():
    with pytest.raises(
        ValueError, match=r"`decay_weights`: with coupling 'squared' and a schedule .*peak_learning_rate"
    ):
        gradtx.adamw(RATE, decay_coupling="squared")
    with pytest.raises(ValueError, match=r"`decay_weights`: coupling must be one of"):
        gradtx.decay_weights(0.1, coupling="lr")
    with pytest.raises(ValueError, match=r"`decay_weights`: peak_learning_rate must be positive"):
        gradtx.decay_weights(0.1, 0.1, coupling="squared", peak_learning_rate=0.0)

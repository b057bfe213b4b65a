"""mars: Yuan et al. 2024, Algorithm 1 (arXiv 2411.10438)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import COUPLING, both_precisions, check, check_same, leafwise, norm


def corrected(gamma=0.025, b1=0.95, most=1.0, from_zero=False):
    """c = g + gamma b1 / (1 - b1) (g - g'), g' the gradient before; c / |c| where |c| > 1. A formula of (g, t)."""
    last = 0.0

    def formula(g, t):
        nonlocal last
        before = last if t > 1 or from_zero else g
        last = g
        c = g + gamma * b1 / (1 - b1) * (g - before)
        return c * min(1.0, most / norm(c))

    return formula


def mars(lr, b1=0.95, b2=0.99, eps=1e-8, decay=0.0, **correction):
    """Adam of c, with decoupled decay."""

    @leafwise
    def rule(p):
        m, v, correct = np.zeros_like(p), np.zeros(p.shape), corrected(b1=b1, **correction)

        def step(g, p, t):
            nonlocal m, v
            c = correct(g, t)
            m = b1 * m + (1 - b1) * c
            v = b2 * v + (1 - b2) * np.abs(c) ** 2
            return -lr * (m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps) + decay * p)

        return step

    return rule


CASES = {
    "default": ({}, {}),
    "numbers": ({"b1": 0.5, "b2": 0.7, "eps": 0.1, "gamma": 0.3}, {"b1": 0.5, "b2": 0.7, "eps": 0.1, "gamma": 0.3}),
    "decay": ({"weight_decay": 0.3}, {"decay": 0.3}),
    "long": ({"max_norm": 6.0, "gamma": 0.5, "b1": 0.8}, {"most": 6.0, "gamma": 0.5, "b1": 0.8}),
    "unbounded": ({"max_norm": float("inf")}, {"most": float("inf")}),
    "from zero": ({"from_zero": True, "max_norm": 4.0}, {"from_zero": True, "most": 4.0}),
}


@both_precisions
@pytest.mark.parametrize(("options", "theirs"), CASES.values(), ids=CASES)
def test_adam_of_gradients_that_lean_on_their_change(options, theirs, precision):
    check(gradtx.mars(0.1, **options), mars(0.1, **theirs), precision, steps=14)


def test_complex_entries_are_a_norm_together():
    check(gradtx.mars(0.1, max_norm=5.0), mars(0.1, most=5.0), complex_leaves=("dense/kernel",))


def test_without_correction_and_bound_it_is_adamw():
    tx = gradtx.mars(0.1, gamma=0.0, max_norm=float("inf"), weight_decay=0.3)
    check_same(tx, gradtx.adamw(0.1, 0.95, 0.99, weight_decay=0.3))


def test_the_exact_last_gradient_is_of_this_batch_at_the_last_parameters():
    """Here g = coupling p + drift, so the two gradients of a batch differ by coupling (p - last p) alone."""
    gamma, b1, lr = 0.5, 0.8, 0.1
    rng = np.random.default_rng(0)
    drift, p = rng.normal(size=(12, 4, 3)), rng.normal(size=(4, 3))
    tx = gradtx.chain(gradtx.reduce_variance(gamma, b1, float("inf"), exact=True), gradtx.scale_by_learning_rate(lr))
    with jax.enable_x64(True), jax.disable_jit():
        ours, theirs, before = jnp.asarray(p), p, p
        state = tx.init(ours)
        for d in drift:
            batch = lambda q, d=d: COUPLING * q + d
            updates, state = tx.update(batch(ours), state, ours, grad_fn=batch)
            ours = gradtx.apply_updates(ours, updates)
            g = batch(theirs)
            c = g + gamma * b1 / (1 - b1) * (g - batch(before))
            theirs, before = theirs - lr * c, theirs
            np.testing.assert_allclose(ours, theirs, rtol=1e-12)  # rounding alone


def test_a_loss_gives_the_gradient_too():
    loss = lambda p: jnp.sum(p["a"] ** 4) / 4
    tx = gradtx.mars(0.1, exact=True)
    p = {"a": jnp.array([1.0, -2.0]), "n": jnp.arange(3)}
    grads = {"a": p["a"] ** 3, "n": None}
    state = tx.init(p)
    a, _ = tx.update(grads, state, p, value_fn=loss)
    b, _ = tx.update(grads, state, p, grad_fn=lambda q: {"a": q["a"] ** 3, "n": None})
    np.testing.assert_allclose(a["a"], b["a"], rtol=1e-6)


def test_noise_that_two_gradients_share_is_not_made_larger():
    """With gamma = 1 and b1 = 0.9 the difference counts nine times: of two batches its noise does, of one it is 0."""
    p, rng = jnp.zeros(1000), np.random.default_rng(1)
    size = {}
    for exact in (False, True):
        tx = gradtx.reduce_variance(1.0, 0.9, float("inf"), exact=exact)
        state = tx.init(p)
        with jax.disable_jit():
            for _ in range(3):
                noise = jnp.asarray(rng.normal(size=1000), jnp.float32)
                updates, state = tx.update(noise, state, p, grad_fn=lambda q, noise=noise: q + noise)
        size[exact] = float(jnp.std(updates))
    np.testing.assert_allclose(size[True], 1.0, rtol=0.1)  # of a thousand draws
    np.testing.assert_allclose(size[False], np.sqrt(10**2 + 9**2), rtol=0.1)


def test_the_exact_form_keeps_the_parameters_as_they_are_stored():
    p = jnp.ones(3, jnp.bfloat16)
    assert gradtx.reduce_variance(exact=True).init(p).last.dtype == jnp.bfloat16
    assert gradtx.reduce_variance().init(p).last.dtype == jnp.float32


def test_the_exact_form_needs_a_function():
    tx, p = gradtx.mars(0.1, exact=True), jnp.ones(3)
    with pytest.raises(ValueError, match="`reduce_variance`: exact reads the gradient at the last parameters: call"):
        tx.update(p, tx.init(p), p)
    with pytest.raises(ValueError, match="`reduce_variance` reads the parameters"):
        tx.update(p, tx.init(p), grad_fn=lambda p: p)


@pytest.mark.parametrize(("argument", "value"), [("b1", 1.0), ("gamma", -0.5), ("max_norm", 0.0)])
def test_an_argument_out_of_range_is_an_error_that_names_it(argument, value):
    with pytest.raises(ValueError, match=rf"`reduce_variance`.*{argument}.*{value}"):
        gradtx.reduce_variance(**{argument: value})

"""k steps forward, one step back."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

P = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}


def run(library, tx, steps=7, **extra):
    params = library.LookaheadParams(P, jax.tree.map(jnp.array, P))
    state = tx.init(params)
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))
    for t in range(steps):
        grads = jax.tree.map(lambda p, t=t: p / 4 + jnp.cos(t + p), params.fast)
        updates, state = update(grads, state, params)
        params = library.apply_updates(params, updates)
    return params, state


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(("period", "step"), [(1, 0.5), (3, 0.5), (2, 1.0), (2, 0.0)])
def test_the_updates_are_optaxs(period, step, reset):
    ours, theirs = (run(lib, lib.lookahead(lib.sgd(0.1, 0.9), period, step, reset)) for lib in (gradtx, optax))
    for x, y in zip(jax.tree.leaves(ours[0]), jax.tree.leaves(theirs[0]), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)  # seven steps in float32
    assert ours[1].steps_since_sync == theirs[1].steps_since_sync


def test_the_slow_parameters_follow_the_papers_formula():
    fast = slow = {k: np.asarray(p, np.float64) for k, p in P.items()}
    for t in range(6):
        fast = {k: p - 0.1 * (p / 4 + np.cos(t + p)) for k, p in fast.items()}
        if t % 3 == 2:
            slow = {k: s + 0.5 * (fast[k] - s) for k, s in slow.items()}
            fast = slow
    params, state = run(gradtx, gradtx.lookahead(gradtx.sgd(0.1), 3, 0.5), 6)
    for k in P:
        np.testing.assert_allclose(params.slow[k], slow[k], rtol=1e-5)
        np.testing.assert_allclose(params.fast[k], fast[k], rtol=1e-5)
    tx = gradtx.lookahead(gradtx.sgd(0.1), 3, 0.5)
    assert gradtx.eval_params(tx, state, params) is params.slow


def test_the_momentum_may_be_pulled_back_too():
    """m = m_slow + alpha (m - m_slow) at a step back, with m_slow what it became at the last one; counts go on."""
    fast = slow = {k: np.asarray(p, np.float64) for k, p in P.items()}
    m = m_slow = {k: np.zeros_like(p) for k, p in fast.items()}
    for t in range(7):
        m = {k: 0.9 * m[k] + p / 4 + np.cos(t + p) for k, p in fast.items()}
        fast = {k: p - 0.1 * m[k] for k, p in fast.items()}
        if t % 3 == 2:
            fast = slow = {k: s + 0.25 * (fast[k] - s) for k, s in slow.items()}
            m = m_slow = {k: s + 0.25 * (m[k] - s) for k, s in m_slow.items()}
    tx = gradtx.lookahead(gradtx.sgd(0.1, 0.9), 3, 0.25, pullback_state=True)
    params, state = run(gradtx, tx)
    for k in P:
        np.testing.assert_allclose(params.fast[k], fast[k], rtol=1e-5)  # seven steps in float32
        np.testing.assert_allclose(state.fast_state["trace"].trace[k], m[k], rtol=1e-5)
    assert state.fast_state["count"] == 7
    with pytest.raises(ValueError, match="reset_state and pullback_state are two ways"):
        gradtx.lookahead(gradtx.sgd(0.1), 3, 0.5, True, pullback_state=True)


def test_random_keys_and_extra_arguments_pass():
    seen = []
    spy = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (seen.append(value), (u, s))[1])
    keyed = gradtx.GradientTransformation(lambda p: {"key": jax.random.key(0)}, lambda u, s, p=None: (u, s))
    run(gradtx, gradtx.lookahead(gradtx.chain(spy, keyed, gradtx.sgd(0.1)), 2, 0.5, reset_state=True), value=3.0)
    assert set(map(float, seen)) == {3.0}


def test_both_copies_can_be_donated_and_a_step_scans_with_bfloat16():
    params = gradtx.LookaheadParams.init_synced(jax.tree.map(lambda p: p.astype(jnp.bfloat16), P))
    tx = gradtx.lookahead(gradtx.adam(0.1), 2, 0.5)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params.fast, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    step = jax.jit(step, donate_argnums=0)
    (params, state), _ = step((params, tx.init(params)), None)
    jax.lax.scan(step, (params, state), length=3)


def test_ordinary_parameters_are_an_error():
    tx = gradtx.lookahead(gradtx.sgd(0.1), 2, 0.5)
    with pytest.raises(TypeError, match="must be LookaheadParams"):
        tx.update(P, tx.init(P), P)
    with pytest.raises(ValueError, match="sync_period must"):
        gradtx.lookahead(gradtx.sgd(0.1), 0, 0.5)

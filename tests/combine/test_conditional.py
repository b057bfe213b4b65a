"""Transformations that apply at some steps."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

P = {"w": jnp.array([1.0, -2.0, 3.0])}
NAMES = ["conditionally_mask", "conditionally_transform"]


def run(library, tx, steps=6, **extra):
    state, seen = tx.init(P), []
    for t in range(steps):
        updates, state = jax.jit(tx.update)({"w": P["w"] + t}, state, P, **extra)
        seen.append(updates["w"])
    return jnp.stack(seen), state


@pytest.mark.parametrize("name", NAMES)
def test_the_updates_are_optaxs(name):
    tx = lambda lib: getattr(lib, name)(lib.chain(lib.trace(0.9), lib.scale(-0.1)), lambda step: step % 3 != 1)
    (ours, our_state), (theirs, their_state) = (run(lib, tx(lib)) for lib in (gradtx, optax))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)
    assert our_state.step == their_state.step == 6 and set(our_state._fields) == set(their_state._fields)


@pytest.mark.parametrize("name", NAMES)
def test_the_condition_may_read_the_extra_arguments_and_the_inner_one_gets_them(name):
    seen = []
    spy = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (seen.append(value), (u, s))[1])
    tx = getattr(gradtx, name)(spy, lambda step, value, **_: value < 3, forward_extra_args=True)
    updates, _ = tx.update(P, tx.init(P), P, value=jnp.array(5.0))
    assert set(map(float, seen)) == {5.0}  # as often as it was traced
    wanted = [0.0] * 3 if name == "conditionally_mask" else P["w"].tolist()
    assert updates["w"].tolist() == wanted
    alone = getattr(gradtx, name)(gradtx.trace(lambda t: 0.5), lambda step: step >= 0)  # the time is the steps'
    alone.update(P, alone.init(P), P)


def test_a_monitor_hears_what_happens_in_the_branch():
    tx = gradtx.monitor(gradtx.conditionally_transform(gradtx.clip_by_global_norm(0.1), lambda step: step > 0))
    state = tx.init(P)
    for clipped in (0, 1, 2):
        _, state = tx.update(P, state, P)
        assert state.clipped == clipped

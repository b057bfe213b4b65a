"""A run that Optax began goes on with gradtx, and back, as if nothing had happened."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import interop

PARAMS = {
    "dense": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)},
    "scale": jnp.float32(2.0),
}
MASK = {"dense": {"kernel": True, "bias": False}, "scale": False}
RATE = lambda lib: lib.cosine_decay_schedule(0.1, 40)

RUNS = {
    "adam": lambda lib: lib.adam(0.1),
    "adamw, scheduled": lambda lib: lib.adamw(RATE(lib)),
    "adamw, masked": lambda lib: lib.adamw(0.1, weight_decay=0.1, mask=MASK),
    "sgd": lambda lib: lib.sgd(RATE(lib)),
    "sgd, momentum": lambda lib: lib.sgd(0.1, momentum=0.9, nesterov=True),
    "lamb": lambda lib: lib.lamb(0.1),
    "lars": lambda lib: lib.lars(0.1),
    "adafactor": lambda lib: lib.adafactor(0.1, min_dim_size_to_factor=2, momentum=0.9),
    "lion": lambda lib: lib.lion(0.1),
    "rmsprop": lambda lib: lib.rmsprop(0.1, momentum=0.9),
    "rmsprop, centered": lambda lib: lib.rmsprop(0.1, centered=True, eps=1e-3),
    "clip and adamw": lambda lib: lib.chain(lib.clip_by_global_norm(1.0), lib.adamw(RATE(lib))),
    "two averages": lambda lib: lib.chain(
        lib.trace(0.9), lib.ema(0.8), lib.trace(0.5), lib.scale_by_learning_rate(0.1)
    ),
}


def train(library, tx, params, state, begin, steps):
    @jax.jit
    def step(params, state, t):
        grads = jax.tree.map(lambda p: p / 8 + jnp.sin(t + jnp.arange(p.size).reshape(p.shape)), params)
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    for t in range(begin, begin + steps):
        params, state = step(params, state, jnp.float32(t))
    return params, state


def close(a, b):
    # Two programs of one formula, ten steps in float32: each rounds at 6e-8, the gradients depend on the parameters.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6), a, b)


@pytest.mark.parametrize("name", RUNS)
def test_the_next_ten_steps_are_optaxs(name):
    ours, theirs = RUNS[name](gradtx), RUNS[name](optax)
    params, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 7)
    wanted, end = train(optax, theirs, params, state, 7, 10)
    moved = interop.from_optax_state(ours, state, params)
    assert jax.tree.structure(moved) == jax.tree.structure(ours.init(params))
    found, our_end = train(gradtx, ours, params, moved, 7, 10)
    close(found, wanted)
    back = interop.to_optax_state(ours, our_end, theirs, params)
    assert jax.tree.structure(back) == jax.tree.structure(end)
    close(train(optax, theirs, found, back, 17, 3)[0], train(optax, theirs, wanted, end, 17, 3)[0])


def test_injected_hyperparameters_may_stay_behind():
    theirs = optax.inject_hyperparams(optax.adam)(learning_rate=optax.linear_schedule(0.1, 0.0, 30))
    ours = gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 30))
    params, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 7)
    moved = interop.from_optax_state(ours, state, params)
    assert moved["count"] == 7
    close(train(gradtx, ours, params, moved, 7, 10)[0], train(optax, theirs, params, state, 7, 10)[0])


def test_what_does_not_fit_is_named():
    state = optax.adam(0.1).init(PARAMS)
    with pytest.raises(ValueError, match=r"no ScaleByLionState to take; there is ScaleByAdamState"):
        interop.from_optax_state(gradtx.lion(0.1), state, PARAMS)
    with pytest.raises(
        ValueError, match=r"nothing in .*sgd.*|scale_by_learning_rate.* remembers what ScaleByAdamState"
    ):
        interop.from_optax_state(gradtx.sgd(0.1), state, PARAMS)
    with pytest.raises(
        ValueError, match=r"ScaleByAdamState.mu\['dense/bias'\] should have shape \(4,\) and has shape \(3,\)"
    ):
        other = {**PARAMS, "dense": {**PARAMS["dense"], "bias": jnp.ones(4)}}
        interop.from_optax_state(gradtx.adam(0.1), state, other)
    with pytest.raises(ValueError, match=r"ScaleByAdamState.mu has no place for the leaf 'dense/bias'"):
        interop.from_optax_state(gradtx.adam(0.1), state, {**PARAMS, "dense": {"kernel": PARAMS["dense"]["kernel"]}})
    with pytest.raises(ValueError, match=r"no TraceState to take"):
        interop.to_optax_state(gradtx.adam(0.1), gradtx.adam(0.1).init(PARAMS), optax.sgd(0.1, 0.9), PARAMS)


def test_extra_arguments_arrive_through_as_optax():
    f = lambda p: jnp.sum((p - 1.5) ** 2)
    p = jnp.ones(3)
    seen = []
    spy = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (seen.append(value), (u, s))[1])
    for wrap in (
        lambda tx: optax.chain(optax.clip(9.0), tx),
        lambda tx: optax.masked(tx, True),
        optax.with_extra_args_support,
        lambda tx: optax.apply_if_finite(tx, 3),
        lambda tx: optax.MultiSteps(tx, 1),
    ):
        tx = wrap(interop.as_optax(gradtx.chain(spy, gradtx.newton())))
        updates, _ = tx.update(jax.grad(f)(p), tx.init(p), p, value_fn=f, value=7.0)
        np.testing.assert_allclose(p + updates, 1.5, rtol=1e-6)
    assert len(seen) >= 5
    assert isinstance(interop.as_optax(gradtx.sgd(0.1)), optax.GradientTransformation)


def test_optaxs_branches_take_the_object_with_gradients_in_bfloat16():
    p, g = jnp.ones(3, jnp.bfloat16), jnp.ones(3, jnp.bfloat16)
    tx = optax.apply_if_finite(interop.as_optax(gradtx.sgd(0.5)), 3)
    updates, _ = tx.update(g, tx.init(p), p)
    assert updates.dtype == jnp.bfloat16
    assert optax.apply_updates(p, updates).tolist() == [0.5] * 3

"""Hyperparameters in the state: read, set, scheduled; and none of what makes Optax's fail."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

P = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}
RATE = lambda t: 0.1 / (1 + t)


def run(library, tx, steps=6, change=None, params=P):
    state = tx.init(params)

    @jax.jit
    def update(state, params, t):
        grads = jax.tree.map(lambda p: (p / 8 + jnp.cos(t)).astype(p.dtype), params)
        updates, state = tx.update(grads, state, params)
        return library.apply_updates(params, updates), state

    for t in range(steps):
        if change and t == 3:
            state.hyperparams[change[0]] = change[1]
        params, state = update(state, params, jnp.float32(t))
    return params, state


def close(a, b):
    # Optax loses five of seven digits of 1 - 0.999^t at the first steps, and half of that is left after the root.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=3e-5), a, b)


@pytest.mark.parametrize(
    ("build", "change"),
    [
        (lambda lib: lib.inject_hyperparams(lib.adam)(0.1), None),
        (lambda lib: lib.inject_hyperparams(lib.adamw)(learning_rate=RATE, weight_decay=0.3), ("weight_decay", 0.0)),
        (lambda lib: lib.inject_hyperparams(lib.sgd)(learning_rate=0.1, momentum=0.9), ("learning_rate", 0.01)),
        (lambda lib: lib.inject_hyperparams(lambda rate: lib.chain(lib.clip(0.5), lib.sgd(rate)))(rate=0.1), None),
        (lambda lib: lib.inject_hyperparams(lib.adamw, static_args=("b1",))(0.1, b1=0.8), ("learning_rate", 1.0)),
    ],
)
def test_the_runs_are_optaxs(build, change):
    (ours, our_state), (theirs, their_state) = (run(lib, build(lib), change=change) for lib in (gradtx, optax))
    close(ours, theirs)
    assert our_state.count == their_state.count == 6
    assert our_state._fields == their_state._fields
    assert set(our_state.hyperparams) == set(their_state.hyperparams)
    close(our_state.hyperparams, their_state.hyperparams)


def test_decays_keep_their_digits_whatever_the_parameters_dtype():
    params = jax.tree.map(lambda p: p.astype(jnp.bfloat16), P)
    tx = gradtx.inject_hyperparams(gradtx.adam)(learning_rate=1e-3)
    moved, state = run(gradtx, tx, params=params)
    assert state.hyperparams["b2"] == jnp.float32(0.999)  # in bfloat16 it is 1
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(moved))
    theirs = optax.inject_hyperparams(optax.adam)(learning_rate=1e-3).init(params)
    assert theirs.hyperparams["b2"] == 1


def test_sizes_and_flags_are_compiled_in_without_being_named():
    for library in (gradtx, optax):  # Optax's own factory too
        tx = gradtx.inject_hyperparams(library.adafactor)(learning_rate=0.1)
        state = jax.jit(tx.init)(P)
        assert "min_dim_size_to_factor" not in state.hyperparams and "learning_rate" in state.hyperparams
        jax.jit(tx.update)(P, state, P)
    masked = gradtx.inject_hyperparams(gradtx.adamw)(0.1, mask=lambda p: jax.tree.map(lambda x: x.ndim > 0, p))
    run(gradtx, masked)
    whole = gradtx.inject_hyperparams(gradtx.sgd)(learning_rate=1)
    assert whole.init(P).hyperparams["learning_rate"] == 1


def test_a_schedule_with_a_state_reads_the_extra_arguments():
    class total:
        def init(self):
            return jnp.zeros(())

        def update(self, state, **extra):
            return state + extra["gain"]

        def __call__(self, state, **extra):
            return state

    tx = gradtx.inject_hyperparams(gradtx.scale)(step_size=total())
    state = tx.init(P)
    for wanted in (0.0, 0.5, 1.0):
        updates, state = tx.update(P, state, P, gain=0.5)
        assert updates["b"] == 0.5 * wanted and state.hyperparams["step_size"] == wanted


def test_the_time_inside_is_its_own_and_eval_params_pass():
    tx = gradtx.inject_hyperparams(lambda rate: gradtx.trace(lambda t: 0.5 * (t > 0)))(rate=0.1)
    updates, state = tx.update(P, tx.init(P), P)
    updates, state = tx.update(P, state, P)
    assert updates["b"] == pytest.approx(0.5 * 1.5)
    assert gradtx.eval_params(tx, state, P)["b"] == 0.5


def test_it_prints_as_the_code_and_hashes():
    tx = gradtx.inject_hyperparams(gradtx.adam)(0.1, b2=0.99)
    assert repr(tx) == "inject_hyperparams(adam)(0.1, b2=0.99)"
    assert tx == gradtx.inject_hyperparams(gradtx.adam)(0.1, b2=0.99)
    assert hash(tx) == hash(gradtx.inject_hyperparams(gradtx.adam)(0.1, b2=0.99))
    jax.jit(lambda tx, s: tx.update(P, s, P))(tx, tx.init(P))


def test_what_is_no_argument_is_an_error():
    with pytest.raises(ValueError, match=r"static_args has \['lr'\], which are no arguments"):
        gradtx.inject_hyperparams(gradtx.adam, static_args="lr")
    with pytest.raises(TypeError, match="inner_factory must be"):
        gradtx.inject_hyperparams(lambda rate: 3)(rate=0.1).init(P)

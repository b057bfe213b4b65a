"""What holds of every method: zero and tiny gradients, narrow precisions, the first rate, the direction, the limit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx

METHODS = {
    "sgd": gradtx.sgd,
    "sgd with momentum": lambda rate: gradtx.sgd(rate, 0.9),
    "sgd with nesterov": lambda rate: gradtx.sgd(rate, 0.9, nesterov=True),
    "momentum velocity": lambda rate: gradtx.momentum(rate, form="velocity"),
    "momentum averaged": lambda rate: gradtx.momentum(rate, form="averaged"),
    "momentum unbiased": lambda rate: gradtx.momentum(rate, form="unbiased"),
    "adagrad": gradtx.adagrad,
    "adagrad from zero": lambda rate: gradtx.adagrad(rate, initial_accumulator_value=0.0),
    "rmsprop": gradtx.rmsprop,
    "rmsprop eps outside": lambda rate: gradtx.rmsprop(rate, eps_in_sqrt=False),
    "rmsprop centred": lambda rate: gradtx.rmsprop(rate, centered=True, momentum=0.9),
    "rmsprop corrected": lambda rate: gradtx.rmsprop(rate, bias_correction=True),
    "adam": gradtx.adam,
    "adam uncorrected": lambda rate: gradtx.adam(rate, bias_correction=False),
    "adamw": gradtx.adamw,
    "nadam": gradtx.nadam,
    "nadamw": gradtx.nadamw,
    "amsgrad": gradtx.amsgrad,
    "adabelief": gradtx.adabelief,
    "radam": gradtx.radam,
    "adamax": gradtx.adamax,
    "adamaxw": gradtx.adamaxw,
    "lamb": gradtx.lamb,
    "lars": gradtx.lars,
    "adafactor": gradtx.adafactor,
    "adafactor factored": lambda rate: gradtx.adafactor(rate, min_dim_size_to_factor=2, momentum=0.9),
    "lion": gradtx.lion,
    "laprop": gradtx.laprop,
    "stable_adamw": gradtx.stable_adamw,
    "mars": gradtx.mars,
    "tiger": gradtx.tiger,
    "nadam rising": lambda rate: gradtx.nadam(rate, momentum_decay=0.004),
    "adamod": gradtx.adamod,
    "adabound": gradtx.adabound,
    "diffgrad": gradtx.diffgrad,
    "adamp": gradtx.adamp,
}

every_method = pytest.mark.parametrize("name", METHODS)

PARAMS = {
    "float32": np.full((3, 2), 0.5, np.float32),
    "bfloat16": np.full((3, 2), 0.5, jnp.bfloat16),
    "float16": np.full((3, 2), 0.5, np.float16),
    "zero": np.zeros(2, np.float16),
}


def along(grads):
    """Gradients for PARAMS of given values, in the parameters' precisions."""
    return {key: np.broadcast_to(np.asarray(grads), p.shape).astype(p.dtype) for key, p in PARAMS.items()}


@jax.jit
def run(tx, grads):
    """The updates of eight steps along one gradient, and the state after them; compiled once for each structure."""

    def step(state, _):
        updates, state = tx.update(grads, state, PARAMS)
        return state, updates

    state, updates = jax.lax.scan(step, tx.init(PARAMS), None, length=8)
    return updates, state


@every_method
@pytest.mark.parametrize("size", [0.0, 1e-7])
def test_zero_and_tiny_gradients_stay_finite_in_every_precision(name, size):
    """1e-7 squared is zero in float16, and so is an eps of 1e-8 or 1e-30."""
    updates, state = run(METHODS[name](0.1), along(size))
    for leaf in [*jax.tree.leaves(updates), *jax.tree.leaves(state)]:
        assert np.all(np.isfinite(np.asarray(leaf).astype(np.float64)))
    assert max(np.max(np.abs(u)) for u in jax.tree.leaves(updates)) <= 1.5


@every_method
def test_every_coordinate_moves_against_its_gradient_by_a_float32(name):
    grads = along(np.array([1.0, -2.0]))
    updates, _ = run(METHODS[name](0.1), grads)
    for key, u in updates.items():
        assert u.dtype == jnp.float32
        # adafactor's decays and adamw's are absent or a ten thousandth of the rate, far below a step.
        np.testing.assert_array_equal(np.sign(u), np.broadcast_to(-np.sign(grads[key].astype(np.float32)), u.shape))


@every_method
def test_the_first_rate_is_the_schedules_value_at_zero(name):
    tx = METHODS[name](lambda t: jnp.where(t == 0, 0.0, 0.1))
    p = jnp.ones((2, 2))
    first, state = tx.update(p, tx.init(p), p)
    np.testing.assert_array_equal(first, np.zeros((2, 2)))
    second, _ = tx.update(p, state, p)
    assert np.all(second != 0)


@every_method
def test_a_complex_parameter_moves_against_both_parts_of_its_gradient(name):
    """jax.grad of a real loss gives dL/dx - i dL/dy, and no caller conjugates it."""
    target = np.array([[1 + 2j, -1 - 1j], [2j, 3 - 1j]], np.complex64)
    p = jnp.full((2, 2), 0.5 - 0.25j, jnp.complex64)
    downhill = target - np.asarray(p)
    tx = METHODS[name](0.1)
    state = tx.init(p)
    for _ in range(2):
        updates, state = tx.update(jax.grad(lambda p: jnp.sum(jnp.abs(p - target) ** 2))(p), state, p)
        np.testing.assert_array_equal(np.sign(np.real(updates)), np.sign(downhill.real))
        np.testing.assert_array_equal(np.sign(np.imag(updates)), np.sign(downhill.imag))


BY_PARTS = {
    "sgd": lambda: gradtx.sgd(0.1, 0.9, nesterov=True),
    "momentum": lambda: gradtx.momentum(0.1, form="unbiased"),
    "lion": lambda: gradtx.lion(0.1, weight_decay=0.1),
    "clipped by element": lambda: gradtx.chain(gradtx.clip(1.0), gradtx.sgd(0.1)),
    "clipped by norm": lambda: gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1)),
    "decayed": lambda: gradtx.chain(gradtx.add_decayed_weights(0.1), gradtx.sgd(0.1)),
}


@pytest.mark.parametrize("name", BY_PARTS)
def test_a_complex_run_is_the_run_of_its_real_and_imaginary_parts(name):
    """For what shares nothing between the entries of a leaf, and for the norm over all leaves."""
    target = np.array([1 + 2j, -3 + 0.5j], np.complex64)

    @jax.jit
    def descend(tx, p, loss_target):
        def loss(p):
            return sum(jnp.sum(jnp.abs(a - b) ** 2) for a, b in zip(p, loss_target, strict=True))

        def step(carry, _):
            p, state = carry
            updates, state = tx.update(jax.grad(loss)(p), state, p)
            return (gradtx.apply_updates(p, updates), state), None

        return jax.lax.scan(step, (p, tx.init(p)), None, length=10)[0][0]

    start = np.array([3 - 1j, 0.25 + 2j], np.complex64)
    (whole,) = descend(BY_PARTS[name](), [start], [target])
    real, imag = descend(BY_PARTS[name](), [start.real, start.imag], [target.real, target.imag])
    np.testing.assert_allclose(whole.real, real, rtol=1e-5, atol=1e-6)  # float32, ten steps
    np.testing.assert_allclose(whole.imag, imag, rtol=1e-5, atol=1e-6)


STATIONARY = {
    "momentum averaged": 0.1,
    "momentum unbiased": 0.1,
    "rmsprop": 0.1,
    "adam": 0.1,
    "adam uncorrected": 0.1,
    "nadam": 0.1,
    "amsgrad": 0.1,
    "radam": 0.1,
    "adamax": 0.1,
    "lamb": 0.1,
    "adafactor": 0.1,
    "adafactor factored": 0.1,
    "sgd with momentum": 1.0,
}


@pytest.mark.parametrize("name", STATIONARY)
def test_in_bfloat16_twenty_thousand_equal_gradients_end_in_the_exact_step(name):
    """The limit of every mean is the gradient, so the step is the rate; heavy ball's is ten times as large."""
    p = jnp.ones((2, 2), jnp.bfloat16)

    @jax.jit
    def go(tx):
        first = tx.update(p, tx.init(p), p)
        return jax.lax.fori_loop(0, 19_999, lambda _, carry: tx.update(p, carry[1], p), first)

    updates, _ = go(METHODS[name](0.1))
    np.testing.assert_allclose(updates, np.full((2, 2), -STATIONARY[name]), rtol=1e-3)

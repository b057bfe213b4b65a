"""A step is an update and an addition; where state is stored in blocks, one kernel for each leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import storage

pytestmark = pytest.mark.usefixtures("one_device")

INT8 = lambda tx: gradtx.compress_state(tx)
FLOAT8 = lambda tx: gradtx.compress_state(tx, storage.float8(), storage.float8("squares"), min_size=0)
METHODS = {  # and how many leaves have a kernel: the matrix, and the vector where it is stored too
    "adamw": (lambda: INT8(gradtx.adamw(gradtx.linear_schedule(1e-2, 0.0, 9), weight_decay=0.1)), 1),
    "adamw in float8": (lambda: FLOAT8(gradtx.adamw(1e-2)), 2),
    "lion": (lambda: INT8(gradtx.lion(1e-3)), 1),
    "lamb": (lambda: INT8(gradtx.lamb(1e-2)), 1),
    "clipped": (lambda: INT8(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-2))), 1),
    "masked": (lambda: FLOAT8(gradtx.adamw(1e-2, mask="w", weight_decay=0.5)), 2),
    "nesterov": (lambda: INT8(gradtx.nadamw(1e-2)), 1),
    "iterates": (lambda: gradtx.compress_state(gradtx.schedule_free_adamw(1e-2), min_size=0), 2),
    "mixed": (lambda: gradtx.compress_state(gradtx.adam(1e-2), storage.corrected()), 1),
}


def params(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {"w": jnp.asarray(rng.normal(size=(64, 256)), dtype), "b": jnp.ones(256, dtype)}


def grads(i, p):
    return jax.tree.map(lambda x: jax.random.normal(jax.random.key(i), x.shape, x.dtype), p)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_kernels_do_what_the_two_calls_do(name, dtype):
    build, kernels = METHODS[name]
    tx, p = build(), params(dtype)
    fused = lambda p, s, g: tx.fused_step(p, s, g, {}, interpret=True)
    state = tx.init(p)
    assert str(jax.make_jaxpr(fused)(p, state, p)).count("pallas_call") == kernels
    found = wanted = (p, state)
    for i in range(3):
        found = jax.jit(fused)(*found, grads(i, p))
        updates, after = jax.jit(tx.update)(grads(i, p), wanted[1], wanted[0])
        wanted = gradtx.apply_updates(wanted[0], updates), after
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        is_code = x.dtype.itemsize == 1
        x, y = (np.asarray(z, np.float32) for z in (x, y))
        if is_code:  # operations are fused otherwise, and an entry between two codes may fall to either
            assert np.mean(x != y) < 1e-3
        else:
            np.testing.assert_allclose(x, y, rtol=1e-5 if dtype == jnp.float32 else 2**-7, atol=1e-6)


@pytest.mark.parametrize(
    "build",
    [
        lambda: INT8(gradtx.muon(0.1)),  # products of matrices
        lambda: gradtx.compress_state(gradtx.adam(0.1), storage.bfloat16(), storage.bfloat16()),  # by chance
        lambda: gradtx.compress_state(gradtx.adam(0.1), storage.int8("signed", 96)),  # no power of two
        lambda: gradtx.adam(0.1),
        lambda: optax.adam(0.1),
    ],
    ids=["muon", "by chance", "blocks of 86", "not stored", "foreign"],
)
def test_without_a_kernel_a_step_is_the_two_calls(build):
    tx, p = build(), params()
    state = tx.init(p)
    found = gradtx.step(tx, p, state, grads(0, p))
    updates, after = tx.update(grads(0, p), state, p)
    jax.tree.map(np.testing.assert_array_equal, found, (gradtx.apply_updates(p, updates), after))


def test_a_step_elsewhere_than_on_a_gpu_is_xlas_own_program():
    tx, p = INT8(gradtx.adamw(1e-2)), params()
    step = jax.jit(lambda *args: gradtx.step(tx, *args)).lower(p, tx.init(p), p)
    assert "custom_call" not in step.as_text()
    found, _ = step.compile()(p, tx.init(p), p)
    wanted = gradtx.apply_updates(p, tx.update(p, tx.init(p), p)[0])
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), found, wanted)


def test_on_several_devices_a_step_is_the_two_calls(monkeypatch):
    monkeypatch.setattr(jax, "device_count", lambda: 2)
    tx, p = INT8(gradtx.adam(0.1)), params()
    assert tx.fused_step(p, tx.init(p), p, {}) is None


def test_leaves_without_gradients_or_floats_are_passed_over():
    tx = INT8(gradtx.adam(0.1))
    p = params() | {"n": jnp.arange(3)}
    found, _ = gradtx.step(tx, p, tx.init(p), {"w": p["w"], "b": None, "n": None})
    assert (found["b"] == 1).all() and (found["w"] != p["w"]).any() and (found["n"] == p["n"]).all()


def test_extra_arguments_reach_the_method():
    tx, p = gradtx.compress_state(gradtx.polyak_sgd(1.0)), params()
    loss = lambda p: 0.5 * sum(jnp.sum(x**2) for x in jax.tree.leaves(p))
    found, _ = gradtx.step(tx, p, tx.init(p), p, value=loss(p))
    np.testing.assert_allclose(found["b"], 0.5, rtol=1e-3)  # value over the squared norm is a half

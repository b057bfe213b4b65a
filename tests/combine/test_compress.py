"""Any method's state in fewer bytes: what is stored how, that it is named, and that the method stays what it is."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import gradtx
from gradtx import storage
from gradtx.storage.codec import Stored


def params(seed=0):
    rng = np.random.default_rng(seed)
    return {"w": jnp.asarray(rng.normal(size=(64, 128)), jnp.float32), "b": jnp.zeros(128)}


def bytes_of(state):
    return sum(x.nbytes for x in jax.tree.leaves(state))


def train(tx, steps=30, seed=0):
    """Steps towards a point, with noise; the distance that is left, as a share of the first, and the state."""
    goal, p = params(1), params()
    state = tx.init(p)

    @jax.jit
    def step(p, state, key):
        noise = jax.tree.map(lambda x: 0.1 * jax.random.normal(key, x.shape), p)
        updates, state = tx.update(jax.tree.map(lambda x, y, n: x - y + n, p, goal, noise), state, p)
        return gradtx.apply_updates(p, updates), state

    for i in range(steps):
        p, state = step(p, state, jax.random.fold_in(jax.random.key(seed), i))
    left = lambda p: float(gradtx.global_norm(jax.tree.map(jnp.subtract, p, goal)))
    return left(p) / left(params()), state


INT8, CORRECTED = 1 + 4 / 128, 3  # bytes for each entry
METHODS = {  # and how each of their slots is stored
    "adamw": (lambda: gradtx.adamw(0.05), [INT8, INT8]),
    "lamb": (lambda: gradtx.lamb(0.05), [INT8, INT8]),
    "lion": (lambda: gradtx.lion(0.02), [INT8]),
    "rmsprop": (lambda: gradtx.rmsprop(0.05), [INT8]),
    "momentum": (lambda: gradtx.sgd(0.1, 0.9), [INT8]),
    "muon": (lambda: gradtx.muon(0.05), [INT8]),
    "schedule_free": (lambda: gradtx.schedule_free_adamw(0.05), [INT8, CORRECTED]),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method_trains_as_well_with_its_state_in_eight_bits(name):
    build, slots = METHODS[name]
    plain, _ = train(build())
    found, state = train(gradtx.compress_state(build(), points=storage.corrected()))
    small = 4 * 128 * (len(slots) + (name == "muon"))  # the vector, which Adam has there
    assert 0 <= bytes_of(state) - sum(slots) * 64 * 128 - small < 40  # counts and single numbers
    assert found == pytest.approx(plain, abs=0.02)  # of the first distance; noise alone moves it by 0.01


def test_without_a_codec_nothing_changes_to_the_bit():
    tx = gradtx.adamw(0.05)
    plain, state = train(tx)
    found, kept = train(gradtx.compress_state(tx, None, None))
    assert found == plain
    jax.tree.map(np.testing.assert_array_equal, kept.inner_state, state)


def test_a_step_is_made_from_what_was_computed_not_from_what_is_stored():
    p, g = params(), params(2)
    updates = {name: tx.update(g, tx.init(p), p)[0] for name, tx in both(gradtx.adamw(0.1)).items()}
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5), updates["plain"], updates["stored"])


def both(tx):
    return {"plain": tx, "stored": gradtx.compress_state(tx)}


def test_what_is_stored_how_is_chosen_by_slot_parameter_and_size():
    of = lambda **options: gradtx.compress_state(gradtx.scale_by_adam(), **options).init(params()).inner_state
    state = of()
    assert state.mu["w"].codec == storage.int8("signed") and state.nu["w"].codec == storage.int8("squares")
    assert state.mu["b"].shape == (128,) and not isinstance(state.mu["b"], Stored)  # fewer than 4096
    state = of(min_size=0, mask="b", slots={"nu": None, "mu": storage.bfloat16()})
    assert state.mu["b"].codec == storage.bfloat16() and not isinstance(state.nu["b"], Stored)
    assert not isinstance(state.mu["w"], Stored)
    with pytest.raises(ValueError, match="the mask's pattern 'x' matches none of the paths"):
        of(mask="x")


def test_inside_and_around_other_combinators():
    eight = lambda tx: gradtx.compress_state(tx, min_size=0)
    chain = gradtx.chain(gradtx.clip_by_global_norm(1.0), eight(gradtx.scale_by_adam()), gradtx.scale(-0.05))
    parts = gradtx.partition({"w": eight(gradtx.adam(0.05)), "b": gradtx.sgd(0.1)}, {"w": "w", "b": "b"})
    around = eight(gradtx.partition({"w": gradtx.adam(0.05), "b": gradtx.sgd(0.1, 0.9)}, {"w": "w", "b": "b"}))
    every = gradtx.MultiSteps(eight(gradtx.adam(0.05)), 2)
    for tx in (chain, parts, around, every, eight(gradtx.monitor(gradtx.adam(0.05)))):
        left, state = train(tx)
        assert left < 0.75 and any(x.dtype == jnp.int8 for x in jax.tree.leaves(state))


def test_a_foreign_transformation_is_known_by_its_fields():
    plain, _ = train(optax.adam(0.05))
    found, state = train(gradtx.compress_state(optax.adam(0.05)))
    assert bytes_of(state) < 2 * INT8 * 64 * 128 + 2 * 4 * 128 + 20 and found == pytest.approx(plain, abs=0.02)


def test_the_schedule_and_the_evaluated_parameters_go_through():
    tx = gradtx.compress_state(gradtx.average_params(gradtx.adam(gradtx.linear_schedule(0.1, 0.0, 2))), min_size=0)
    p, state = params(), tx.init(params())
    for _ in range(3):
        updates, state = tx.update(p, state, p)
        last, p = p, gradtx.apply_updates(p, updates)
    np.testing.assert_array_equal(p["w"], last["w"])  # the rate is 0
    assert float(jnp.max(jnp.abs(gradtx.eval_params(tx, state, p)["w"] - p["w"]))) > 0.01


def test_a_state_that_is_stored_otherwise_is_an_error():
    p = params()
    state = gradtx.compress_state(gradtx.adam(0.1)).init(p)
    other = gradtx.compress_state(gradtx.adam(0.1), storage.int8("signed", 64))
    with pytest.raises(ValueError, match=r"slot 'mu' is stored as storage.int8\(\), and .* store it as .*block=64"):
        other.update(p, state, p)


def test_one_inside_another_is_an_error():
    twice = gradtx.compress_state(gradtx.chain(gradtx.compress_state(gradtx.adam(0.1)), gradtx.trace(0.9)))
    with pytest.raises(ValueError, match="`inner` stores its state so already: put one `compress_state` around all"):
        twice.init(params())


def test_a_checkpoint_says_how_to_read_it(tmp_path):
    p, tx = params(), gradtx.compress_state(gradtx.adam(0.1))
    _, state = tx.update(p, tx.init(p), p)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "state", state)
    with ocp.StandardCheckpointer() as checkpointer:
        read = checkpointer.restore(tmp_path / "state", jax.eval_shape(lambda: state))
        jax.tree.map(np.testing.assert_array_equal, read, state)
        other = gradtx.compress_state(gradtx.adam(0.1), storage.float8())
        with pytest.raises(ValueError):
            checkpointer.restore(tmp_path / "state", jax.eval_shape(other.init, p))


def test_never_more_than_a_few_leaves_are_in_float32():
    tx = gradtx.compress_state(gradtx.adamw(0.1))
    p = {f"w{i}": jax.ShapeDtypeStruct((256, 512), jnp.float32) for i in range(8)}
    step = lambda p, s, g: (lambda u, s: (gradtx.apply_updates(p, u), s))(*tx.update(g, s, p))
    lowered = jax.jit(step, donate_argnums=(0, 1)).lower(p, jax.eval_shape(tx.init, p), p)
    # As on a GPU or TPU. On a CPU the default order makes leaves side by side, to compute them on several cores.
    in_turns = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    memory = lowered.compile(in_turns).memory_analysis()
    assert memory.temp_size_in_bytes <= 4 * 4 * 256 * 512  # of a state that takes 16 such leaves in float32


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"means": "int8"}, r"`compress_state`: means must be a codec of `gradtx.storage`.*got 'int8'"),
        ({"squares": storage.int8}, "call it to build one"),
        ({"slots": {"mu": 8}}, r"slots\['mu'\] must be a codec"),
        ({"min_size": -1}, "min_size must not be negative"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        gradtx.compress_state(gradtx.adam(0.1), **arguments)

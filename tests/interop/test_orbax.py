"""A checkpoint outlives a change of the recipe; and Optax's, which has lost its classes, is continued."""

import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from gradtx import interop

from .test_optax_state import PARAMS, RUNS, close, train

RECIPES = ("adamw, scheduled", "adafactor", "muon", "MultiSteps", "injected", "partition", "apply_if_finite", "named")


def saved(path, state):
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "state", state)
    return path / "state"


def restored(path, template=None):
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore(path, template)


def equal(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("name", RECIPES)
def test_a_restored_run_goes_on_with_the_same_bits(name, tmp_path):
    tx = RUNS[name](gradtx)
    params, state = train(gradtx, tx, PARAMS, tx.init(PARAMS), 0, 5)  # MultiSteps: in the middle of accumulating
    read = restored(saved(tmp_path, state), jax.eval_shape(tx.init, PARAMS))
    assert jax.tree.structure(read) == jax.tree.structure(state)
    equal(train(gradtx, tx, params, read, 5, 10), train(gradtx, tx, params, state, 5, 10))


def filled(state):
    """The state with other numbers in every array."""
    rng = np.random.default_rng(0)

    def leaf(x):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            return x
        return jnp.asarray(rng.integers(0, 2 if x.dtype == bool else 100, x.shape), x.dtype)

    return jax.tree.map(leaf, state)


@pytest.mark.parametrize("kind", ["as it is", "compressed"])
def test_every_state_of_the_catalogue_is_read_bit_for_bit(kind, tmp_path):
    params = {"dense": {"kernel": jnp.ones((4, 32)), "bias": jnp.ones(8)}, "scale": jnp.ones(())}
    wrap = (lambda tx: tx) if kind == "as it is" else lambda tx: gradtx.compress_state(tx, min_size=32)
    entries = {name: entry for name, entry in CATALOGUE.items() if kind == "as it is" or "compress" not in name}
    states = {name: jax.eval_shape(wrap(entry.build(gradtx)).init, params) for name, entry in entries.items()}
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), states)
    written = filled(zeros)
    read = restored(saved(tmp_path, written), states)
    assert jax.tree.structure(read) == jax.tree.structure(written)
    equal(read, written)


def test_a_clip_a_mask_and_a_schedule_are_added_between_save_and_restore(tmp_path):
    plain = gradtx.adamw(0.1, weight_decay=0.01)
    params, state = train(gradtx, plain, PARAMS, plain.init(PARAMS), 0, 5)
    path = saved(tmp_path, state)
    # what changes no number, changes no number
    same = gradtx.chain(
        gradtx.clip_by_global_norm(jnp.inf), gradtx.adamw(gradtx.constant_schedule(0.1), weight_decay=0.01)
    )
    read = restored(path, jax.eval_shape(same.init, PARAMS))
    close(train(gradtx, same, params, read, 5, 10)[0], train(gradtx, plain, params, state, 5, 10)[0])
    # and a schedule goes on from step 5
    schedule = gradtx.piecewise_constant_schedule(0.0, {})
    changed = gradtx.chain(
        gradtx.clip_by_global_norm(1.0),
        gradtx.adamw(gradtx.join_schedules([schedule, gradtx.constant_schedule(0.1)], [6]), mask="kernel"),
    )
    read = restored(path, jax.eval_shape(changed.init, PARAMS))
    one, after = train(gradtx, changed, params, read, 5, 1)
    equal(one, params)
    assert after["count"] == after["scale_by_adam"].count == 6
    moved, _ = train(gradtx, changed, one, after, 6, 1)
    assert moved["scale"] != one["scale"]


def test_a_link_that_remembers_is_added_or_left_out(tmp_path):
    plain = gradtx.adam(0.1)
    params, state = train(gradtx, plain, PARAMS, plain.init(PARAMS), 0, 5)
    path = saved(tmp_path, state)
    tx = gradtx.chain(gradtx.zero_nans(), gradtx.adam(0.1), gradtx.ema(0.0, debias=False))
    read = tx.init(params) | restored(path, jax.eval_shape(plain.init, PARAMS))
    assert jax.tree.structure(read) == jax.tree.structure(tx.init(params))
    new, after = train(gradtx, tx, params, read, 5, 10)
    close(new, train(gradtx, plain, params, state, 5, 10)[0])  # zero_nans and an average of one number change nothing
    fewer = {name: after[name] for name in plain.init(params)}
    close(train(gradtx, plain, new, fewer, 15, 2)[0], train(gradtx, tx, new, after, 15, 2)[0])


def test_what_wraps_is_added(tmp_path):
    plain = gradtx.adam(0.1)
    params, state = train(gradtx, plain, PARAMS, plain.init(PARAMS), 0, 5)
    tx = gradtx.apply_if_finite(plain)
    inner = restored(saved(tmp_path, state), jax.eval_shape(plain.init, PARAMS))
    read = tx.init(params)._replace(inner_state=inner)
    close(train(gradtx, tx, params, read, 5, 10)[0], train(gradtx, plain, params, state, 5, 10)[0])


@pytest.mark.parametrize(
    "name", [*RECIPES, "sgd, momentum", "lamb", "clip and adamw", "masked", "injected, in MultiSteps"]
)
@pytest.mark.parametrize("form", ["orbax", "flax"])
def test_optaxs_checkpoint_without_its_classes_is_continued(name, form, tmp_path):
    ours, theirs = RUNS[name](gradtx), RUNS[name](optax)
    params, state = train(optax, theirs, PARAMS, theirs.init(PARAMS), 0, 5)
    if form == "orbax":
        raw = restored(saved(tmp_path, state))
    else:
        raw = jax.device_get(flax.serialization.to_state_dict(state))
    moved = interop.from_optax_state(ours, raw, params)
    assert jax.tree.structure(moved) == jax.tree.structure(ours.init(params))
    equal(moved, interop.from_optax_state(ours, state, params))


def test_what_does_not_fit_a_checkpoint_is_named(tmp_path):
    raw = restored(saved(tmp_path, optax.adam(0.1).init(PARAMS)))
    with pytest.raises(
        ValueError, match="scale_by_lion: no ScaleByLionState to take; there is a state of count, mu, nu"
    ):
        interop.from_optax_state(gradtx.lion(0.1), raw, PARAMS)
    with pytest.raises(ValueError, match="there is no place for a state of count, mu, nu"):
        interop.from_optax_state(gradtx.sgd(0.1), raw, PARAMS)

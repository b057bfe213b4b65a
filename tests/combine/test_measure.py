"""Links that measure, and one vector of all leaves."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

P = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array([[0.5]])}
NORM = lambda updates: jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(updates)))


def test_a_snapshot_is_found_by_name_and_scans():
    tx = gradtx.chain(gradtx.scale(2.0), gradtx.snapshot("norm", NORM), gradtx.clip_by_global_norm(0.1))
    state = tx.init(P)
    assert gradtx.tree.get(state, "norm") == 0
    body = lambda state, _: (tx.update(P, state, P)[1], None)
    state, _ = jax.lax.scan(body, state, length=2)
    np.testing.assert_allclose(gradtx.tree.get(state, "norm"), 2 * NORM(P), rtol=1e-6)


def test_measures_are_optaxs_and_the_structure_stays():
    def run(lib):
        measures = {"norm": NORM, "large": lib.measure_with_ema(lambda u: NORM(u) > 3, decay=0.9)}
        tx = lib.chain(lib.scale(0.5), lib.monitor(measures), lib.scale(0.1))
        state, structures = tx.init(P), []
        for t in range(4):
            _, state = jax.jit(tx.update)(jax.tree.map(lambda p, t=t: p * (t + 1), P), state, P)
            structures.append(jax.tree.structure(state))
        return lib.tree.get(state, "norm"), lib.tree.get(state, "large"), structures, tx.init(P)

    ours, theirs = run(gradtx), run(optax)
    np.testing.assert_allclose(ours[:2], theirs[:2], rtol=1e-6)
    assert jax.tree.structure(ours[3]) == ours[2][0] == ours[2][-1]
    assert jax.tree.structure(theirs[3]) != theirs[2][0]  # where a step does not scan


def test_the_argument_decides_which_monitor_is_meant():
    assert isinstance(gradtx.monitor({"norm": NORM}).init(P), gradtx.MonitorState)
    assert isinstance(gradtx.monitor(measures={"norm": NORM}).init(P), gradtx.MonitorState)
    assert isinstance(gradtx.monitor(gradtx.adam(0.1)).init(P), gradtx.MonitoredState)
    with pytest.raises(TypeError, match="inner must be"):
        gradtx.monitor(3)


def test_flattened_leaves_are_one_vector():
    tx = gradtx.flatten(gradtx.clip_by_block_rms(1.0))
    updates, _ = tx.update(P, tx.init(P), P)
    factor = np.sqrt(np.mean(np.square([1, -2, 3, 0.5])))
    np.testing.assert_allclose(updates["w"], np.asarray(P["w"]) / factor, rtol=1e-6)
    partial, _ = tx.update({"w": P["w"], "b": None}, tx.init(P), P)
    assert partial["b"] is None


def test_dtypes_are_kept_apart():
    params = {"half": jnp.ones(3, jnp.bfloat16), "single": jnp.ones(2)}
    with jax.enable_x64(True):
        params = {"single": jnp.ones(2, jnp.float32), "double": jnp.ones(3)}
        tx = gradtx.flatten(gradtx.trace(0.9))
        state = tx.init(params)
        assert {k: x.dtype for k, x in state.trace.items()} == {"float32": jnp.float32, "float64": jnp.float64}
        updates, _ = tx.update(params, state, params)
        assert updates["double"].dtype == jnp.float64

"""DiLoCo beside the source's algorithm in NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.collectives import collectives
from gradtx import parallel

from .replicas import MESH, SETTINGS, SHAPES, N, P, assert_same_on_all, cast, oracle, program, run

EVERY = 3
TX = gradtx.local_updates(gradtx.sgd(0.1, momentum=0.9), EVERY, axis="data")


def diloco():
    anchor, v_outer, v_inner, t = {}, {k: 0.0 for k in SHAPES}, [{k: 0.0 for k in SHAPES} for _ in range(N)], [0]

    def rule(grads, params):
        if not anchor:
            anchor.update(params[0])
        t[0] += 1
        updates = [{} for _ in range(N)]
        for k in SHAPES:
            for i in range(N):
                v_inner[i][k] = 0.9 * v_inner[i][k] + grads[i][k]
                updates[i][k] = -0.1 * v_inner[i][k]
            if t[0] % EVERY == 0:
                d = np.mean([anchor[k] - (p[k] + u[k]) for p, u in zip(params, updates, strict=True)], axis=0)
                v_outer[k] = 0.9 * v_outer[k] + d
                anchor[k] = anchor[k] - 0.7 * (d + 0.9 * v_outer[k])
                for u, p in zip(updates, params, strict=True):
                    u[k] = anchor[k] - p[k]
        return updates

    return rule


@pytest.mark.parametrize("setting", SETTINGS)
def test_devices_train_alone_and_meet(setting):
    _, updates, _ = run(TX, setting)
    wanted = oracle(diloco)
    for name in wanted:
        np.testing.assert_allclose(updates[name], wanted[name], rtol=1e-12, atol=1e-13)  # some tens of roundings


def test_after_a_meeting_synchronized_parameters_are_equal_to_the_bit():
    params, _, state = run(TX, dtype="float32", synchronize=True)
    at = lambda t: {k: x[:, t] for k, x in params.items()}
    for t in (2, 5):
        assert_same_on_all(at(t))
    assert not np.array_equal(params["matrix"][0, 0], params["matrix"][1, 0])
    assert_same_on_all((state.anchor, state.outer_state, state.steps_since_sync))
    without, _, _ = run(TX, dtype="float32")
    for k, x in params.items():
        np.testing.assert_allclose(without[k], x, rtol=1e-5, atol=1e-6)  # float32: what synchronizing takes away
    spread = [np.ptp(x[:, 5], axis=0).max() for x in without.values()]
    assert 0 < max(spread) < 1e-6  # why it is there


def test_the_mean_of_the_parameters_is_local_sgd():
    params, _, _ = run(gradtx.local_updates(gradtx.sgd(0.1), 2, gradtx.sgd(1.0), axis="data"), synchronize=True)
    alone, _, _ = run(gradtx.local_updates(gradtx.sgd(0.1), 100, axis="data"))
    for k, x in params.items():
        np.testing.assert_allclose(x[:, 1], np.broadcast_to(alone[k][:, 1].mean(axis=0), x[:, 1].shape), rtol=1e-12)


def test_meeting_at_every_step_with_one_device_is_the_inner_method():
    tx, params, grads = gradtx.local_updates(gradtx.adam(0.1), 1, gradtx.sgd(1.0)), cast(SHAPED, "float32"), SHAPED
    u, state = tx.update(grads, tx.init(params), params)
    wanted, _ = gradtx.adam(0.1).update(grads, gradtx.adam(0.1).init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), u, wanted)  # float32
    met = gradtx.synchronized(gradtx.apply_updates(params, u), state)
    jax.tree.map(np.testing.assert_array_equal, met, state.anchor)
    jax.tree.map(np.testing.assert_array_equal, gradtx.eval_params(tx, state, params), state.anchor)


SHAPED = {k: np.linspace(-1, 1, max(int(np.prod(s)), 1)).reshape(s).astype(np.float32) for k, s in SHAPES.items()}


def test_complex_parameters_meet_at_their_mean():
    tx = gradtx.local_updates(gradtx.sgd(0.1), 1, gradtx.sgd(1.0))
    p, g = jnp.array([1 + 2j]), jnp.array([0.5 - 1j])
    u, _ = tx.update(g, tx.init(p), p)
    np.testing.assert_allclose(u, -0.1 * np.conj(g), atol=1e-6)  # float32


def test_a_parameter_without_gradient_stays():
    tx = gradtx.local_updates(gradtx.adam(0.1), 1)
    params = {"a": jnp.ones(2), "b": jnp.ones(2), "n": jnp.arange(2)}
    u, state = tx.update({"a": jnp.ones(2), "b": None, "n": None}, tx.init(params), params)
    assert u["b"] is None and state.anchor["b"].tolist() == [1, 1]
    met = gradtx.synchronized(gradtx.apply_updates(params, u), state)
    assert met["b"].tolist() == [1, 1] and met["n"] is params["n"] and met["a"].tolist() == state.anchor["a"].tolist()


def test_what_is_sent_is_sent_within_a_branch():
    compiled = program(TX)
    assert {kind: tuple(x) for kind, x in collectives(compiled).items()} == {"all-reduce": (1, 4 * (256 * 256 + 256))}
    text = str(compiled.as_text())
    (computation,) = [c for c in re.split(r"\n(?=\S)", text) if " all-reduce(" in c]
    assert not computation.startswith("ENTRY") and " conditional(" in text


def test_rates_of_the_outer_steps_are_no_learning_rates():
    params = {"w": jnp.ones(3)}
    tx = gradtx.monitor(gradtx.local_updates(gradtx.sgd(0.5), 1))
    _, state = tx.update(params, tx.init(params), params)
    assert gradtx.metrics(state)["learning_rate"] == 0.5


def test_synchronized_needs_one_state():
    with pytest.raises(ValueError, match="holds 0 states of `local_updates`"):
        gradtx.synchronized({"w": jnp.ones(2)}, gradtx.EmptyState())


@pytest.mark.parametrize(
    "tx", [TX, gradtx.majority_sign("data"), gradtx.top_k(0.1, "data"), gradtx.powersgd(1, "data")], ids=repr
)
def test_gradients_that_are_summed_already_are_an_error(tx):
    params = {"w": jnp.ones((8, 6))}

    def update(params, x):
        grads = jax.grad(lambda p: jnp.sum(p["w"]) * x[0])(params)
        return tx.update(grads, tx.init(params), params)[0]

    mapped = jax.shard_map(update, mesh=MESH, in_specs=(P(), P("data")), out_specs=P())
    with pytest.raises(
        ValueError, match=r'updates\["w"\] does not differ along .data.: it is summed already.*parallel\.varying'
    ):
        jax.eval_shape(mapped, params, jnp.ones(8))
    with pytest.raises(ValueError, match=r'the axis "data" is bound by no `jax\.shard_map`'):
        tx.update(params, tx.init(params), params)
    assert parallel.replica_specs(tx, params, "data", MESH)[0]["w"] == (P("data") if tx is TX else P())

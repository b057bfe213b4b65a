"""Methods of matrices on a mesh: what travels in a step, where their statistics lie, and that steps stay the same."""

import functools
import math

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

import gradtx
from benchmarks.collectives import COLLECTIVE, collectives, mesh_of, model
from gradtx import sharding

# How it is built, the most all-to-alls, and the most bytes gathered or added, which are those of vectors. Weights are
# 81,920 bytes, of three shapes: 32 x 32, 32 x 128 and 128 x 32; where a method takes transposes, of two.
METHODS = {
    "muon": (lambda: gradtx.muon(1e-2), 4, 0),
    "normuon": (lambda: gradtx.normuon(1e-2), 4, 2048),
    "adamuon": (lambda: gradtx.adamuon(1e-2), 4, 64),
    "scion": (lambda: gradtx.scion(1e-2), 4, 0),
    "dion": (lambda: gradtx.dion(1e-2, rank_fraction=0.5), 4, 0),
    "dion2": (lambda: gradtx.dion2(1e-2), 4, 0),
    "hyperball": (lambda: gradtx.hyperball(gradtx.scale_by_muon(), 0.018), 4, 64),
    "soap": (lambda: gradtx.soap(1e-2, precondition_frequency=2), 43, 5120),
    "soap_muon": (lambda: gradtx.soap_muon(1e-2), 47, 5120),
    "eshampoo": (lambda: gradtx.eshampoo(1e-2), 40, 5120),
    "kl_shampoo": (lambda: gradtx.kl_shampoo(1e-2), 48, 12000),
    "shampoo": (lambda: gradtx.shampoo(1e-2, frequency=2), 22, 5120),
    "scale_by_shampoo": (lambda: gradtx.scale_by_shampoo(None, 1.0, 1e-6), 22, 0),
    "psgd_kron": (lambda: gradtx.psgd_kron(1e-2), 8, 1024),
}
LAYOUTS = {"fsdp": AxisType.Auto, "fsdp x tensor": AxisType.Explicit}
CASES = [("muon", "fsdp"), ("soap", "fsdp"), ("shampoo", "fsdp"), *((name, "fsdp x tensor") for name in METHODS)]


def weights(layout):
    """The matrices of the model's two layers, with a sixteenth of its width, as shapes."""
    params = model(layout, mesh_of(layout, LAYOUTS[layout]), layers=2)
    shrunk = lambda x: jax.ShapeDtypeStruct([n // 16 for n in x.shape], x.dtype, sharding=x.sharding)
    return {layer: {name: shrunk(x) for name, x in found.items() if x.ndim == 2} for layer, found in params.items()}


def drawn(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: 0.1 * rng.normal(size=x.shape).astype(np.float32), weights("fsdp"))


@functools.cache
def on_one_device(name, steps=3):
    tx = METHODS[name][0]()
    params = jax.tree.map(jax.numpy.asarray, drawn(0))
    state = jax.jit(tx.init)(params)

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return gradtx.apply_updates(params, updates), state

    for i in range(steps):
        params, state = step(params, state, drawn(i + 1))
    return params


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_no_weights_are_gathered_and_steps_are_those_of_one_device(name, layout, capfd):
    build, exchanges, gathered = METHODS[name]
    tx, shapes = build(), weights(layout)
    places = jax.tree.map(lambda x: x.sharding, shapes)
    put = lambda seed: jax.tree.map(jax.device_put, drawn(seed), places)
    params = put(0)
    state = sharding.init_sharded(tx, params)
    program = sharding.jit_update(tx, places, state).lower(params, state, params).compile()
    found = collectives(program)
    assert found.pop("all-to-all").operations <= exchanges, found
    assert sum(count.bytes for count in found.values()) <= gathered, found
    left_to_xla = [
        line for line in program.as_text().splitlines() if COLLECTIVE.search(line) and "/shard_map/" not in line
    ]
    assert not left_to_xla
    assert "rematerialization" not in capfd.readouterr().err  # XLA's warning that it gathers an array to move it
    for i in range(3):
        params, state = jax.block_until_ready(program(params, state, put(i + 1), {}))
    for x, y in zip(*map(jax.tree.leaves, (params, on_one_device(name))), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)  # steps are about 0.01


@pytest.mark.parametrize(("name", "layout"), CASES)
def test_statistics_are_divided_among_all_devices(name, layout):
    state = sharding.abstract_state(METHODS[name][0](), weights(layout))
    for path, x in jax.tree_util.tree_leaves_with_path(state):
        parts = x.size / max(1, math.prod(x.sharding.shard_shape(x.shape)))
        assert parts == 8 or x.size <= 128, (jax.tree_util.keystr(path), x)  # vectors lie as their side

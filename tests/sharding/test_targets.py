"""What devices say to each other in the update of 24 leaves, read from the compiled program; Optax's counts beside."""

import jax
import pytest
from jax.sharding import AxisType

import gradtx
from benchmarks.collectives import collectives, mesh_of, model
from gradtx import sharding

# The layout, how the method is built, and the most operations and bytes of each kind. Optax 0.2.8 with its
# state laid likewise: lamb 33 and 71 all-reduces, adafactor 33 and 70, muon 201 and 339 operations of 336 and 304 MB.
TARGETS = {
    "adamw, fsdp": ("fsdp", lambda: gradtx.adamw(1e-3), {}),
    "lamb, fsdp": ("fsdp", lambda: gradtx.lamb(1e-3), {"all-reduce": (1, 128)}),
    "lamb, fsdp x tensor": ("fsdp x tensor", lambda: gradtx.lamb(1e-3), {"all-reduce": (1, 160)}),
    "adafactor, fsdp": ("fsdp", lambda: gradtx.adafactor(1e-3), {"all-reduce": (2, 57_472)}),
    "adafactor, fsdp x tensor": ("fsdp x tensor", lambda: gradtx.adafactor(1e-3), {"all-reduce": (4, 49_376)}),
    "muon, fsdp": ("fsdp", lambda: gradtx.muon(1e-3), {"all-to-all": (4, 10_485_760)}),
    "muon, fsdp x tensor": ("fsdp x tensor", lambda: gradtx.muon(1e-3), {"all-to-all": (4, 10_485_760)}),
}


@pytest.mark.parametrize("axis_type", [AxisType.Auto, AxisType.Explicit], ids=["auto", "explicit"])
@pytest.mark.parametrize("target", TARGETS)
def test_collectives(target, axis_type, capfd):
    layout, build, most = TARGETS[target]
    params = model(layout, mesh_of(layout, axis_type))
    state = sharding.abstract_state(build(), params)
    compiled = sharding.jit_update(build(), params, state).lower(params, state, params).compile()
    found = collectives(compiled)
    assert set(found) == set(most), found
    for kind, (operations, size) in most.items():
        assert found[kind].operations <= operations and found[kind].bytes <= size, found
    assert "rematerialization" not in capfd.readouterr().err


def test_replicated_matrices_are_divided_among_the_devices():
    params = model("replicated", mesh_of("replicated"))

    def compiled(steps):
        tx = gradtx.muon(1e-3, orthogonalizer=gradtx.newton_schulz(steps=steps, gram=False))
        state = sharding.abstract_state(tx, params)
        return sharding.jit_update(tx, params, state).lower(params, state, params).compile()

    program = compiled(5)
    found = collectives(program)
    assert set(found) == {"all-gather"} and found["all-gather"].operations == 2
    # A loop's body counts once, and Newton and Schulz take five steps; the Gram form is no loop, and takes fewer
    # operations. One device that makes all matrices orthogonal needs 129.7 GFLOP.
    once, never = (x.cost_analysis()["flops"] for x in (program, compiled(0)))
    assert never + 5 * (once - never) < 16.5e9


def test_users_who_jit_themselves_get_the_same():
    params = model("fsdp", mesh_of("fsdp"))
    tx = sharding.on_mesh(gradtx.muon(1e-3), params)
    state = sharding.abstract_state(tx, params)
    found = collectives(jax.jit(tx.update).lower(params, state, params).compile())
    assert set(found) == {"all-to-all"} and found["all-to-all"].operations == 4

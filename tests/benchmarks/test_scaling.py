"""The arithmetic's laws are what compiled programs say, and docs/scaling.md has the tables that follow."""

import math

import pytest

import gradtx
from benchmarks import collectives, on_mesh, scaling
from benchmarks.arithmetic import EVERY, METHODS, Message, Model, orthogonalizing, passes, seconds

WITHIN = ("lamb", "adafactor", "muon")
BETWEEN = ("majority_sign", "powersgd", "top_k", "local_updates")
MODEL = Model("small", 2, collectives.WIDTH)  # four matrices of each shape on eight devices: some have none
COUNTS = 5 * 4  # bytes of counts, which the arithmetic leaves out


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """The model with fewer layers, which compile sooner."""
    monkeypatch.setattr(on_mesh, "model", lambda layout, mesh: collectives.model(layout, mesh, MODEL.layers))


def bytes_of(update):
    return {kind: counted.bytes for kind, counted in update.collectives.items()}


def bytes_by_kind(messages):
    return {message.kind: message.bytes for message in messages}


@pytest.mark.parametrize("name", WITHIN)
def test_what_updates_say_within_a_copy(name):
    found = on_mesh.update_of(gradtx, METHODS[name].build(None), "fsdp")
    assert bytes_of(found) == bytes_by_kind(METHODS[name].update(MODEL, 8, 1))
    assert 0 <= found.state - METHODS[name].state(MODEL, 8) <= COUNTS


@pytest.mark.parametrize("name", WITHIN)
def test_what_updates_say_with_two_copies(name, monkeypatch):
    monkeypatch.undo()  # four layers: eight matrices of each shape for eight devices
    specs = collectives.LAYOUTS["fsdp"].specs
    monkeypatch.setitem(collectives.LAYOUTS, "two", collectives.Layout({"data": 2, "fsdp": 4}, specs))
    found = on_mesh.update_of(gradtx, METHODS[name].build(None), "two")
    assert bytes_of(found) == bytes_by_kind(METHODS[name].update(MODEL._replace(layers=4), 4, 2))


@pytest.mark.parametrize("name", BETWEEN)
def test_what_is_said_between_copies(name):
    found = on_mesh.manual_update(METHODS[name].build("data"))
    assert bytes_of(found) == bytes_by_kind(METHODS[name].between(MODEL, 8))
    assert 0 <= found.state - METHODS[name].state(MODEL, 1) <= COUNTS


def test_bfloat16_halves_what_muon_sends():
    # XLA on the CPU sends bfloat16 as float32; tests/linalg/test_distributed.py sees what it is asked to send.
    full, half = (METHODS[name].update(MODEL, 8, 1)[0].bytes for name in ("muon", "muon in bfloat16"))
    assert full == 2 * half > 0


def test_the_page_has_the_tables_that_follow():
    found = {name: text for _, name, text, _ in _parts()}
    assert set(found) == set(scaling.tables())
    for name, write in scaling.tables().items():
        if name != "collectives":  # that one is compiled: other tests hold its numbers
            assert found[name] == write(), f"python -m benchmarks.scaling --write: {name} has changed"


def test_the_page_has_what_compiled_updates_say(monkeypatch):
    monkeypatch.undo()  # the whole model
    table = next(text for _, name, text, _ in _parts() if name == "collectives")
    rows = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:] for line in table.splitlines()}
    for name in ("lamb", "muon"):
        assert rows[name][0] == scaling.said(on_mesh.update_of(gradtx, METHODS[name].build(None), "fsdp"))


def _parts():
    text = scaling.PAGE.read_text(encoding="utf-8")
    return [(m[0], m[2], m[0][len(m[1]) : -len(m[3])], m[3]) for m in scaling.TABLE.finditer(text)]


def test_rings():
    assert Message("all-reduce", 800, 8).sent == 1400  # each eighth goes round twice, but for its last step
    assert Message("all-gather", 800, 8).sent == 700
    assert Message("reduce-scatter", 100, 8).sent == 700
    assert Message("all-to-all", 800, 8).sent == 700
    assert seconds([Message("all-gather", 800e9, 16)]) == pytest.approx(15)  # at 50 GB/s between nodes
    assert seconds([Message("all-gather", 800e9, 16)], EVERY) == pytest.approx(15 / EVERY)


def test_models_have_the_parameters_of_their_names():
    sizes = {"B": 1e9, "T": 1e12}
    for model in scaling.MODELS:
        assert model.parameters == pytest.approx(float(model.name[:-1]) * sizes[model.name[-1]], rel=0.01)


def test_more_devices_than_matrices_do_not_orthogonalize_faster():
    model = MODEL._replace(width=64)
    assert orthogonalizing(model, 2) == 2 * orthogonalizing(model, 4)
    assert orthogonalizing(model, 4) == orthogonalizing(model, 64) > 0
    assert orthogonalizing(model, 2, copies=2) == orthogonalizing(model, 4)
    assert math.isclose(passes(model, 10), 10 * passes(model, 1))

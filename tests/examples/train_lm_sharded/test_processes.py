"""How a process finds out that it is one of several."""

import jax
import pytest

from examples.train_lm_sharded import processes


@pytest.fixture
def asked(monkeypatch):
    """What JAX was asked to join."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args, **named: calls.append((args, named)))
    return calls


def test_a_process_that_is_alone_asks_nobody(asked):
    processes.join("host:1", 1, 0, 5)
    assert asked == []


def test_what_is_told_is_not_looked_for(asked):
    processes.join("host:1", 4, 3, 5)
    named = {"heartbeat_timeout_seconds": 5, "cluster_detection_method": "deactivate"}
    assert asked == [(("host:1", 4, 3), named)]


def test_else_jax_looks_for_a_launcher(asked):
    processes.join(None, None, None, 5)
    assert asked == [((None, None, None), {"heartbeat_timeout_seconds": 5, "cluster_detection_method": None})]


@pytest.mark.parametrize(
    ("message", "alone"), [("coordinator_address should be defined.", True), ("Number of processes must be", False)]
)
def test_without_a_launcher_it_is_alone_and_half_of_one_is_an_error(message, alone, monkeypatch):
    def initialize(*args, **named):
        raise ValueError(message)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    if alone:
        processes.join(None, None, None, 5)
    else:
        with pytest.raises(ValueError, match=message):
            processes.join(None, None, None, 5)


def test_a_lost_process_is_two_lines_and_a_mistake_a_traceback(monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    try:
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer\nwhere it was called")
    except ValueError as error:
        processes.failed(error, "after step 3")
    expected = "error: process 0 ends after step 3: another process is gone.\n  UNKNOWN: Gloo AllGather failed: "
    assert capsys.readouterr().err == expected + "Connection closed by peer\n"
    try:
        raise KeyError("name")
    except KeyError as error:
        processes.failed(error, "after step 3")
    assert "Traceback" in capsys.readouterr().err

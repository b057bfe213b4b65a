"""What `make multihost` says of its runs."""

import numpy as np
import pytest

from examples.multihost.__main__ import losses_apart, parameters_apart, reason, table


def test_the_reason_of_an_end_is_found_in_a_log():
    ours = "step 1\nerror: process 0 ends after step 1: another process is gone.\n  UNKNOWN: Gloo\nmore"
    assert reason(ours) == ["error: process 0 ends after step 1: another process is gone.", "  UNKNOWN: Gloo"]
    runtimes = "step 1\nE1126 12:14 1 x.cc:1] heartbeat\nF1126 12:14 1 client.h:80] Terminating process because\n@ 0x7"
    assert reason(runtimes) == ["Terminating process because"]
    assert reason("step 1\nKilled") == ["Killed"]
    assert reason("") == []


def test_differences_are_relative_and_of_the_same_steps():
    reference = {"losses": [9.0, 4.0, 2.0], "first step": 0}
    assert losses_apart({"losses": [4.0, 2.5], "first step": 1}, reference) == pytest.approx(0.25)
    assert parameters_apart([np.array([3.0, 4.1]), np.ones(2)], [np.array([3.0, 4.0]), np.ones(2)]) == pytest.approx(
        0.02
    )


def test_the_table_is_aligned(capsys):
    run = {
        "processes": 1,
        "mesh": {"data": 2, "fsdp": 1, "tensor": 4},
        "collectives": {"all-gather": 3},
        "parameter bytes per device": 2048,
        "state bytes per device": 2**22,
        "tokens per second": 1234.5,
    }
    table({"one": run, "another": run | {"collectives": {"all-reduce": 12}}})
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len({len(line) for line in lines}) == 1
    assert lines[1].split() == "one 1 data 2 x tensor 4 0 3 2 KiB 4,096 KiB 1,234".split()

"""Two processes of two devices each train as one; what they save is read on other meshes; one is killed."""

import json
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from examples.multihost.local import Processes, checkpoints
from examples.train_lm_sharded.__main__ import main
from examples.train_lm_sharded.options import read_options
from examples.train_lm_sharded.run import Run

STEPS, SAVED = 80, 20
RUN = "--layers 1 --width 32 --heads 2 --context 16 --batch 8 --log-every 1 --clip 1".split()
RUN += ["--steps", str(STEPS), "--save-every", str(SAVED)]
TWO = "--mesh data=2,fsdp=2 --zero".split()
HEARTBEAT = 15  # seconds: more than a busy machine keeps a thread waiting
PATIENCE = 120  # seconds for a run
RTOL = 1e-6  # float32 sums over devices, in another order


def in_this_process(folder, *mesh):
    """Runs to the end, on eight devices; the report, and the parameters in the last checkpoint."""
    files = ["--checkpoint", str(folder / "saves"), "--report", str(folder / "report.json")]
    assert main([*RUN, *files, "--mesh", *mesh, "--processes", "1"]) == 0
    return read(folder)


def in_processes(folder, processes, devices, *flags):
    """The processes, started."""
    files = ["--checkpoint", str(folder / "saves"), "--report", str(folder / "report.json")]
    return Processes(folder / "logs", processes, devices, [*RUN, *files, *flags], HEARTBEAT)


def read(folder):
    run = Run(read_options([*RUN, "--checkpoint", str(folder / "saves"), "--processes", "1"]))
    run.prepare()
    assert run.done == STEPS
    return json.loads((folder / "report.json").read_text()), jax.device_get(run.trained.params)


def agree(found, expected, first):
    """The losses of all steps from `first` on, and the last parameters, as in the expected run."""
    (report, params), (reference, its_params) = found, expected
    assert report["first step"] == first and len(report["losses"]) == STEPS - first
    np.testing.assert_allclose(report["losses"], reference["losses"][first:], rtol=RTOL)
    for mine, its in zip(jax.tree.leaves(params), jax.tree.leaves(its_params), strict=True):
        assert np.linalg.norm(mine - its) <= RTOL * np.linalg.norm(its)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The whole run in one process, on a mesh of all three axes."""
    return in_this_process(tmp_path_factory.mktemp("alone"), "data=2,fsdp=2,tensor=2")


def test_two_processes_train_as_one_and_another_mesh_goes_on(alone, tmp_path):
    with in_processes(tmp_path, 2, 2, *TWO) as processes:
        assert processes.wait(PATIENCE) == [0, 0], processes.said(0) + processes.said(1)
    together = read(tmp_path)
    agree(together, alone, first=0)
    assert together[0]["processes"] == 2 and together[0]["devices"] == 4
    # Adam's two moments, divided by data and fsdp where the parameters are divided by fsdp alone
    assert together[0]["state bytes per device"] < 1.1 * together[0]["parameter bytes per device"]
    assert "[Gloo]" not in processes.said(0)

    for step in checkpoints(tmp_path / "saves"):
        if step > 2 * SAVED:
            shutil.rmtree(tmp_path / "saves" / str(step))
    agree(in_this_process(tmp_path, "data=4,tensor=2"), alone, first=2 * SAVED)


def test_a_process_that_dies_stops_the_others_and_one_process_goes_on(alone, tmp_path):
    with in_processes(tmp_path, 2, 2, *TWO) as processes:
        last = time.monotonic() + PATIENCE
        while not (saved := checkpoints(tmp_path / "saves")):
            assert time.monotonic() < last and processes.running(0) and processes.running(1), processes.said(0)
            time.sleep(0.01)
        processes.kill(1)
        killed = time.monotonic()
        code, victims = processes.wait(PATIENCE)
        seconds = time.monotonic() - killed
    assert victims == -signal.SIGKILL and code != 0
    assert seconds < HEARTBEAT + 5  # and the time to end
    assert "another process is gone" in processes.said(0) or "another task died" in processes.said(0)
    saved = checkpoints(tmp_path / "saves")

    with in_processes(tmp_path, 1, 4, "--mesh", "fsdp=2,tensor=2") as processes:
        assert processes.wait(PATIENCE) == [0], processes.said(0)
    assert f"resumed      after step {saved[-1]}" in processes.said(0)
    agree(read(tmp_path), alone, first=saved[-1])


def test_a_checkpoint_of_another_run_is_not_gone_on_from(alone, tmp_path, capsys):
    files = ["--checkpoint", str(tmp_path), "--processes", "1", "--layers", "1", "--width", "16", "--heads", "1"]
    files += ["--context", "8", "--batch", "8", "--steps", "1"]
    assert main(files) == 0
    assert main([*files, "--optimizer", "lion"]) == 2
    assert (
        f"--checkpoint {tmp_path} is of a run with --optimizer adamw, and this one has lion" in capsys.readouterr().err
    )
    assert main(files) == 0
    assert "nothing left to do: step 1 of 1 was reached before" in capsys.readouterr().out

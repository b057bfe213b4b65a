"""Processes on this machine that train together, each with CPU devices of its own."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]


class Processes:
    """Runs `examples.train_lm_sharded` in several processes; those that still run at the end of `with` are killed.

    Args:
      folder: what process i prints is in `process_i.log` there.
      processes: how many.
      devices: of each.
      arguments: of the program, but for those by which processes find each other.
      heartbeat: seconds until a silent process is given up.
    """

    def __init__(self, folder: Path, processes: int, devices: int, arguments: Sequence[str], heartbeat: int = 10):
        folder.mkdir(parents=True, exist_ok=True)
        environment = os.environ | {
            "JAX_PLATFORMS": "cpu",
            "JAX_NUM_CPU_DEVICES": str(devices),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "examples.train_lm_sharded", *arguments, "--heartbeat", str(heartbeat)]
        together = ["--coordinator", f"127.0.0.1:{free_port()}"] if processes > 1 else []
        self.logs = [folder / f"process_{i}.log" for i in range(processes)]
        self._running: list[subprocess.Popen] = []
        for i, log in enumerate(self.logs):
            place = [*together, "--processes", str(processes), "--process", str(i)] if together else []
            with log.open("w") as out:
                self._running.append(
                    subprocess.Popen(
                        [*command, *place], cwd=ROOT, env=environment, stdout=out, stderr=subprocess.STDOUT
                    )
                )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
            process.wait()

    def pid(self, i: int) -> int:
        """The id of process i."""
        return self._running[i].pid

    def kill(self, i: int) -> None:
        """Ends process i at once, as a machine ends that loses its power."""
        os.kill(self.pid(i), signal.SIGKILL)

    def running(self, i: int) -> bool:
        """Whether process i runs."""
        return self._running[i].poll() is None

    def wait(self, seconds: float) -> list[int]:
        """The exit codes of all, once they have ended.

        Raises:
          subprocess.TimeoutExpired: one runs longer.
        """
        last = time.monotonic() + seconds
        return [process.wait(max(last - time.monotonic(), 0.1)) for process in self._running]

    def said(self, i: int) -> str:
        """What process i has printed."""
        return self.logs[i].read_text()


def free_port() -> int:
    """A port that no program listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def checkpoints(folder: Path) -> list[int]:
    """The steps of the checkpoints that are whole: Orbax renames a folder to its number once all of it is written."""
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdecimal())

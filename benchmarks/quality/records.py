"""What has been run, as lines of JSON: so a search that is killed goes on where it was, from any process."""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.quality.recipes import Numbers
from benchmarks.quality.tasks import Task


class Job(NamedTuple):
    """A run, by all that decides its numbers."""

    task: str
    setting: dict[str, Any]
    recipe: str
    numbers: dict[str, float]
    steps: int
    seed: int
    held: str  # the part that it is measured on


def job(task: Task, recipe: str, numbers: Numbers, steps: int, seed: int, held: str) -> Job:
    shown = {name: float(f"{float(x):.6g}") for name, x in numbers._asdict().items()}  # as it is written
    return Job(task.name, dict(task.setting), recipe, shown, steps, seed, held)


class Records:
    """The lines of a file. Several processes may add to it: a line is written at once.

    Args:
      path: of the file, which need not be there. Its folder is made.
    """

    def __init__(self, path: Path):
        self.path = path
        self._found: dict[str, dict[str, Any]] = {}
        self._read = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self.refresh()

    def refresh(self) -> None:
        """Reads what has been added since; a line that was cut off when its process was killed is left aside."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # it may still grow
                    break
                self._read += len(line)
                try:
                    key, found = json.loads(line)
                except ValueError:
                    continue
                self._found[_written(key)] = found

    def get(self, key: tuple) -> dict[str, Any] | None:
        """What was found, or None."""
        return self._found.get(_written(key))

    def add(self, key: tuple, found: dict[str, Any]) -> None:
        """Adds a line, after what another process may have left unfinished."""
        self._found[_written(key)] = found
        with self.path.open("a+b") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 1))
            begin = b"\n" if file.read() not in (b"", b"\n") else b""
            file.write(begin + json.dumps([key, found]).encode() + b"\n")


def _written(key: Any) -> str:
    return json.dumps(key, sort_keys=True)

"""What a run says: on the terminal of process 0, and in a file."""

import json
import math
import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jax
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

COLLECTIVE = re.compile(
    r" (all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)  # an asynchronous one counts where it starts


def collectives(compiled: Any) -> dict[str, int]:
    """How many messages of each kind the devices exchange in a compiled program."""
    return dict(Counter(COLLECTIVE.findall(compiled.as_text())).most_common())


def bytes_per_device(tree: Any) -> int:
    """What arrays, or shapes with shardings, take on one device."""
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


class Progressing:
    """A bar on a terminal, and a line now and then anywhere; silent in every process but the first.

    Args:
      first: steps made before.
      steps: in all.
      tokens: bytes of text in a step.
    """

    def __init__(self, first: int, steps: int, tokens: int):
        self.console = Console(quiet=jax.process_index() > 0, highlight=False, soft_wrap=True)
        columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        self._bar = Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal)
        self._task = self._bar.add_task("", total=steps, completed=first)
        self._tokens, self._first, self._width = tokens, first, len(str(steps))
        self._seen, self._clock = first, time.perf_counter()
        self._begun = self._clock

    def __enter__(self) -> "Progressing":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """Prints a line."""
        self.console.print(text, markup=False)

    def step(self, done: int) -> None:
        """That many steps are done."""
        self._bar.update(self._task, completed=done)

    def line(self, done: int, loss: float, rate: float) -> None:
        """A line about the steps since the last one."""
        now = time.perf_counter()
        speed = self._tokens * (done - self._seen) / (now - self._clock)
        self._seen, self._clock = done, now
        self.say(f"step {done:{self._width}}   loss {loss:.4f}   rate {rate:.2e}   {speed:10,.0f} tokens/s")

    def speed(self, done: int) -> float:
        """Bytes of text per second since the start."""
        return self._tokens * (done - self._first) / (time.perf_counter() - self._begun)


def write(path: Path, found: dict[str, Any]) -> None:
    """Writes the report as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(json.dumps(found, indent=1))
    partial.replace(path)

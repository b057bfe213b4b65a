"""One run: prepared, trained, saved and reported."""

import argparse
import math
from typing import Any

import jax
import numpy as np
from jax.experimental.multihost_utils import reached_preemption_sync_point

from examples.train_lm_sharded import report
from examples.train_lm_sharded.checkpoint import Checkpoints
from examples.train_lm_sharded.mesh import batch_sharding, make_mesh
from examples.train_lm_sharded.optimizer import optimizer, rate
from examples.train_lm_sharded.options import OptionError, sizes
from examples.train_lm_sharded.text import read_text
from examples.train_lm_sharded.train import Training

TERMINATED = 143  # the exit code of programs that SIGTERM ended


class Run:
    """One run: `prepare` it, then `train`.

    Args:
      options: as `read_options` gives them.
    """

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.done = 0  # steps
        self.losses: list[Any] = []
        self.checkpoints: Checkpoints | None = None

    def where(self) -> str:
        """How far it has come."""
        return f"after step {self.done}"

    def prepare(self) -> None:
        """Places parameters and state: new ones, or those of the last checkpoint. What it cannot do it says at once.

        Raises:
          OptionError: the options do not fit each other, the devices, the text or the checkpoint.
        """
        options = self.options
        self.mesh = make_mesh(options.mesh)
        self.batch = batch_sharding(self.mesh, options.batch)
        self.length = options.context + 1  # each byte's next one is learned
        self.text = read_text(options.text, self.length)
        self.rate = rate(options.learning_rate, options.warmup, options.steps)
        tx = optimizer(options.optimizer, self.rate, options.clip)
        training = Training(sizes(options), tx, self.mesh, self.batch, options.seed, options.dtype, options.zero)
        if options.checkpoint:
            names = "layers", "width", "heads", "context", "batch", "seed", "optimizer"
            run = {f"--{name}": getattr(options, name) for name in names} | {"--text": self.text.digest}
            self.checkpoints = Checkpoints(options.checkpoint, run)
            self.done = self.checkpoints.latest() or 0
        if self.checkpoints and self.done:
            self.trained = self.checkpoints.read(self.done, training.shapes)
        else:
            self.trained = training.start()
        self.first, self.training = self.done, training
        self.found = {
            "mesh": dict(self.mesh.shape),
            "devices": jax.device_count(),
            "processes": jax.process_count(),
            "parameters": sum(x.size for x in jax.tree.leaves(training.shapes.params)),
            "parameter bytes per device": report.bytes_per_device(training.shapes.params),
            "state bytes per device": report.bytes_per_device(training.shapes.state),
            "first step": self.first,
        }

    def train(self) -> int:
        """The steps; returns the exit code.

        Raises:
          OptionError: the loss is not finite.
        """
        options, code = self.options, 0
        step = self.training.compiled(options.batch, self.length)
        self.found["collectives"] = report.collectives(step)
        with report.Progressing(self.first, options.steps, options.batch * options.context) as shown:
            self._introduce(shown.say)
            while self.done < options.steps and not code:
                tokens = self.text.batch(options.seed, self.done, options.batch, self.length, self.batch)
                self.trained, loss = step(self.trained, tokens)
                self.losses.append(loss)
                self.done += 1
                shown.step(self.done)
                if reached_preemption_sync_point(self.done):  # the machines are wanted back
                    code = TERMINATED
                last = code or self.done == options.steps
                if last or self.done % options.log_every == 0:
                    shown.line(self.done, self._fetch(), float(self.rate(self.done - 1)))
                if self.checkpoints and (last or self.done % options.save_every == 0):
                    self._fetch()  # what is not finite is not worth saving
                    self.checkpoints.write(self.done, self.trained)
            speed = shown.speed(self.done)
            if self.checkpoints:
                self.checkpoints.close()
            self._conclude(shown.say, speed)
        return code

    def _fetch(self) -> float:
        """Waits for the steps, and gives the last one's loss."""
        self.losses = [x if isinstance(x, float) else float(np.asarray(x)) for x in self.losses]
        if not math.isfinite(self.losses[-1]):
            raise OptionError(f"the loss is {self.losses[-1]} {self.where()}: --learning-rate may be too large")
        return self.losses[-1]

    def _introduce(self, say: Any) -> None:
        found, options = self.found, self.options
        axes = ", ".join(f"{name} {size}" for name, size in found["mesh"].items())
        messages = ", ".join(f"{n} {kind}" for kind, n in found["collectives"].items()) or "none"
        kind = jax.devices()[0].device_kind
        size = lambda name: f"{found[f'{name} bytes per device'] / 2**20:.2f} MiB"
        say(f"network      GPT of {found['parameters']:,} weights on {len(self.text.data):,} bytes: {self.text.name}")
        say(f"devices      {found['devices']} x {kind} in {counted(found['processes'], 'process', 'es')}: mesh {axes}")
        say(f"on each      parameters {size('parameter')}, state of {options.optimizer} {size('state')}")
        say(f"collectives  {messages}")
        if self.first:
            say(f"resumed      after step {self.first}, from {options.checkpoint}")

    def _conclude(self, say: Any, speed: float) -> None:
        found = self.found | {"losses": self.losses, "tokens per second": speed, "steps": self.done}
        if self.options.report and jax.process_index() == 0:
            report.write(self.options.report, found)
        if self.done < self.options.steps:
            say(f"told to end (SIGTERM) {self.where()}" + ", which is saved" * (self.checkpoints is not None))
        elif self.losses:
            say(f"loss {self.losses[-1]:.9g} after step {self.done}; {speed:,.0f} tokens/s")
        else:
            say(f"nothing left to do: step {self.done} of {self.options.steps} was reached before")


def counted(number: int, thing: str, plural: str = "s") -> str:
    """`1 process`, `2 processes`."""
    return f"{number} {thing}{plural if number != 1 else ''}"

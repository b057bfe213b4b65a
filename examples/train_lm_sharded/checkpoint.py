"""Checkpoints by Orbax: written by all processes together, whole or not at all, and read onto any mesh."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orbax.checkpoint as ocp

from examples.train_lm_sharded.options import OptionError


class Checkpoints:
    """The checkpoints of a run, in a folder that every process sees.

    Args:
      folder: where they are; made if it is not there.
      run: what decides the numbers of the run. A checkpoint goes on only a run that says the same.
      keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path, run: Mapping[str, Any], keep: int = 3):
        self.folder, self._run = folder, dict(run)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(folder.absolute(), options=options, item_names=("trained", "run"))

    def latest(self) -> int | None:
        """The number of steps of the last whole checkpoint; None: there is none.

        Raises:
          OptionError: it is of another run.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        saved = self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]
        for name in sorted(self._run.keys() | saved.keys()):
            if (mine := self._run.get(name)) != (its := saved.get(name)):
                raise OptionError(
                    f"--checkpoint {self.folder} is of a run with {name} {its}, and this one has {mine}: make them "
                    "equal, or give another folder"
                )
        return step

    def read(self, step: int, shapes: Any) -> Any:
        """What was saved after that many steps, where `shapes` says."""
        return self._manager.restore(step, args=ocp.args.Composite(trained=ocp.args.StandardRestore(shapes)))["trained"]

    def write(self, step: int, trained: Any) -> None:
        """Saves; returns as soon as the arrays may change, while the files are still being written."""
        arguments = ocp.args.Composite(trained=ocp.args.StandardSave(trained), run=ocp.args.JsonSave(self._run))
        self._manager.save(step, args=arguments, force=True)

    def close(self) -> None:
        """Waits until everything is written."""
        self._manager.close()

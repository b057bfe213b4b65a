"""What a comparison leaves behind: `results.json`, two pictures, a page, and a table on the terminal."""

import dataclasses
import importlib.metadata
import json
import math
import os
import platform
from pathlib import Path
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from examples.train_resnet.curves import draw_accuracy, draw_loss
from examples.train_resnet.optimizers import OPTIMIZERS, SCHEDULES
from examples.train_resnet.page import write_page
from examples.train_resnet.train import Epoch, Run, Trainer

HIGHEST = "highest (epoch)"
COLUMNS = ["", "optimizer", "schedule", "rate", "validation", HIGHEST, "test", "loss", "time"]
TEXT_COLUMNS = COLUMNS[:3]
CAPTION = "validation and test accuracy and validation loss after the last epoch"


def best_of(runs: list[Run]) -> Run | None:
    """The run with the highest validation accuracy after its last epoch; None if all diverged."""
    finished = [run for run in runs if not run.diverged_in]
    return max(finished, key=lambda run: run.score, default=None)


def answer(runs: list[Run], pictures: int) -> str:
    """Which optimizer, learning rate and schedule did best, and how many runs were as good within the noise.

    Args:
      runs: all of them.
      pictures: that the validation accuracy was measured on.
    """
    if (best := best_of(runs)) is None:
        return "Every run diverged."
    accuracy = best.score[0]
    error = math.sqrt(accuracy * (1 - accuracy) / pictures)  # standard error of a share
    close = sum(run.score[0] >= accuracy - error for run in runs if run is not best)
    others = f" Within one standard error of it, {error:.2%}: {close or 'none'} of the other runs."
    return (
        f"Best on the validation pictures: {OPTIMIZERS[best.trial.optimizer]}, learning rate {best.trial.rate:g}, "
        f"{SCHEDULES[best.trial.schedule]}: {accuracy:.2%} ({_percent(best.test_accuracy)} on the test pictures)."
    ) + (others if len(runs) > 1 else "")


def device() -> str:
    """What computes, in words."""
    kind = jax.devices()[0].device_kind
    return f"CPU, {counted(os.cpu_count() or 1, 'core')}" if kind == "cpu" else kind


def counted(number: int, noun: str) -> str:
    """The number and the noun, in the plural where there is not one."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def rows(runs: list[Run], best: Run | None) -> list[dict[str, str]]:
    """The table: for each run, its cells by column."""
    table = []
    for run in runs:
        trial = run.trial
        cells = dict.fromkeys(COLUMNS, "") | {
            "": "★" if run is best else "",
            "optimizer": OPTIMIZERS[trial.optimizer],
            "schedule": trial.schedule,
            "rate": f"{trial.rate:g}",
            "time": f"{run.seconds:.0f} s",
        }
        if run.diverged_in:
            cells["validation"] = "diverged"
            cells[HIGHEST] = f"in epoch {run.diverged_in}"
        else:
            last, top = run.history[-1], max(run.history, key=lambda epoch: epoch.validation_accuracy)
            cells["validation"] = _percent(last.validation_accuracy)
            cells[HIGHEST] = f"{_percent(top.validation_accuracy)} ({top.epoch})"
            cells["test"] = _percent(run.test_accuracy)
            cells["loss"] = f"{last.validation_loss:.3g}"
        table.append(cells)
    return table


def print_table(console: Console, runs: list[Run], best: Run | None) -> None:
    """Prints the runs, grouped by optimizer, the best one with a star."""
    one_schedule = len({run.trial.schedule for run in runs}) == 1
    left_out = "schedule" if one_schedule else HIGHEST  # 80 columns do not hold both
    columns = [column for column in COLUMNS if column != left_out]
    caption = f"{SCHEDULES[runs[0].trial.schedule]}; {CAPTION}" if one_schedule else CAPTION
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False, caption=caption)
    for column in columns:
        table.add_column(column, justify="left" if column in TEXT_COLUMNS else "right", no_wrap=True)
    for number, (run, cells) in enumerate(zip(runs, rows(runs, best), strict=True)):
        if number and run.trial.optimizer != runs[number - 1].trial.optimizer:
            table.add_section()
        table.add_row(*(cells[column] for column in columns), style="bold" if run is best else None)
    console.print(table)


def results(trainer: Trainer, runs: list[Run], arguments: dict[str, Any], started: str, seconds: float) -> dict:
    """Everything that is known about a comparison, for `results.json`; a number that is not finite becomes None."""
    data, best = trainer.data, best_of(runs)
    return {
        "started": started,
        "seconds": seconds,
        "arguments": arguments,
        "settings": dataclasses.asdict(trainer.settings),
        "versions": {name: _version(name) for name in ("gradtx", "jax", "jaxlib", "flax", "numpy")}
        | {"python": platform.python_version()},
        "device": {"name": device(), "platform": jax.default_backend()},
        "data": {
            "name": data.name,
            "classes": list(data.classes),
            "train": len(data.train),
            "validation": len(data.validation),
            "test": len(data.test),
        },
        "network": {"name": "ResNet-20", "parameters": trainer.parameters},
        "steps_per_epoch": trainer.steps_per_epoch,
        "compilations_of_the_training_step": trainer.traced.count,
        "best": None if best is None else dataclasses.asdict(best.trial),
        "answer": answer(runs, len(data.validation)),
        "runs": [_run(run) for run in runs],
    }


def write(folder: Path, trainer: Trainer, runs: list[Run], found: dict) -> None:
    """Writes `accuracy.png`, `loss.png`, `results.json` and `index.html` into the folder."""
    best = best_of(runs)
    title = [f"ResNet-20 on {trainer.data.name}"]
    if len({run.trial.schedule for run in runs}) == 1:
        title.append(SCHEDULES[runs[0].trial.schedule])
    draw_accuracy(folder / "accuracy.png", runs, best, "\n".join(title))
    draw_loss(folder / "loss.png", runs, best, "\n".join(title))
    text = json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "results.json").write_text(text + "\n", encoding="utf-8")
    write_page(folder / "index.html", ", ".join(title), rows(runs, best), CAPTION, found)


def _run(run: Run) -> dict:
    curves = {name: [_finite(getattr(epoch, name)) for epoch in run.history] for name in Epoch._fields}
    return dataclasses.asdict(run.trial) | {
        "transformation": run.transformation,
        "diverged_in_epoch": run.diverged_in,
        "validation_accuracy": curves["validation_accuracy"][-1] if run.history and not run.diverged_in else None,
        "test_accuracy": run.test_accuracy,
        "seconds": run.seconds,
        "curves": curves,
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"  # run from a checkout


def _finite(x: float) -> float | None:
    return x if math.isfinite(x) else None


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share:.2%}"

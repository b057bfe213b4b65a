"""Pictures of the runs: validation accuracy and loss against epochs."""

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from examples.train_resnet.optimizers import OPTIMIZERS, SCHEDULES
from examples.train_resnet.train import Epoch, Run

COLOURS = {"sgd": "#1f5fa8", "adam": "#c8453b", "adamw": "#1b8a5a"}
LINES = ["solid", (0, (5, 1.6)), (0, (1.2, 1.2)), (0, (5, 1.5, 1.2, 1.5))]  # by rate, the largest first
INK, PALE = "#333333", "#d9d9d9"
ACCURACIES = [0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999]


def draw_accuracy(path: Path, runs: list[Run], best: Run | None, title: str) -> None:
    """Writes a PNG of every run's validation accuracy, one panel for each optimizer and schedule.

    The accuracy axis is logarithmic in the error, so that 98 % and 99 % lie as far apart as 80 % and 90 %.
    """
    figure, panels = _panels(runs, title)
    highest = max((epoch.validation_accuracy for run in runs for epoch in run.history), default=0.9)
    floor = max(1 - highest, 2e-3) / 2  # the error drawn for an accuracy of 100 %, which has no logarithm
    ticks = ACCURACIES if highest > 0.9 else [tenth / 10 for tenth in range(10)]
    for axes, members in panels:
        axes.set_yscale(
            "function",
            functions=(lambda y: -np.log10(np.maximum(1 - y, floor)), lambda z: 1 - 10.0 ** -np.asarray(z)),
        )
        axes.set_ylim(0, 1 - floor * 0.9)
        axes.yaxis.set_major_locator(FixedLocator([a for a in ticks if a < 1 - floor]))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{100 * y:g}%"))
        _lines(axes, members, lambda epoch: epoch.validation_accuracy)
        if best in members:
            _star(axes, best, best.history[-1].validation_accuracy, above=True)
        axes.legend(loc="lower right", fontsize=8, frameon=False, handlelength=3.2)
    figure.supylabel("validation accuracy (logarithmic in the error)", fontsize=10, color=INK)
    figure.savefig(path, dpi=150)


def draw_loss(path: Path, runs: list[Run], best: Run | None, title: str) -> None:
    """Writes a PNG of every run's loss: validation in full colour, training pale."""
    figure, panels = _panels(runs, title)
    for axes, members in panels:
        axes.set_yscale("log")
        _lines(axes, members, lambda epoch: epoch.train_loss, alpha=0.3, labelled=False)
        _lines(axes, members, lambda epoch: epoch.validation_loss)
        if best in members:
            _star(axes, best, best.history[-1].validation_loss, above=False)
        axes.legend(loc="upper right", fontsize=8, frameon=False, handlelength=3.2)
    bottom, top = panels[0][0].get_ylim()  # which all panels share
    if bottom < 1:  # there are good runs, which one that explodes would flatten
        panels[0][0].set_ylim(bottom, min(top, 10))
    figure.supylabel("cross-entropy: validation (strong), training (pale)", fontsize=10, color=INK)
    figure.savefig(path, dpi=150)


def _panels(runs: list[Run], title: str) -> tuple[Figure, list[tuple[Axes, list[Run]]]]:
    optimizers = list(dict.fromkeys(run.trial.optimizer for run in runs))
    schedules = list(dict.fromkeys(run.trial.schedule for run in runs))
    figure = Figure(figsize=(max(6, 1 + 3.7 * len(optimizers)), 1.2 + 3.6 * len(schedules)), layout="constrained")
    figure.suptitle(title, fontsize=11, color=INK)
    grid = figure.subplots(len(schedules), len(optimizers), sharex=True, sharey=True, squeeze=False)
    panels = []
    for (schedule, optimizer), axes in zip(itertools.product(schedules, optimizers), grid.flat, strict=True):
        heading = OPTIMIZERS[optimizer] + (f"\n{SCHEDULES[schedule]}" if len(schedules) > 1 else "")
        axes.set_title(heading, fontsize=10, color=COLOURS[optimizer], fontweight="bold")
        axes.set_xlim(0, 1.03 * max([1, *(epoch.epoch for run in runs for epoch in run.history)]))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
        axes.set_xlabel("epoch", color=INK)
        axes.grid(color=PALE, linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(colors=INK, labelsize=8)
        panels.append((axes, [r for r in runs if (r.trial.schedule, r.trial.optimizer) == (schedule, optimizer)]))
    return figure, panels


def _lines(
    axes: Axes, runs: Iterable[Run], value: Callable[[Epoch], float], alpha: float = 1.0, labelled: bool = True
) -> None:
    ranked = sorted(runs, key=lambda run: -run.trial.rate)
    for run, line in zip(ranked, itertools.cycle(LINES), strict=False):
        points = [(epoch.epoch, value(epoch)) for epoch in run.history]
        x, y = [x for x, _ in points], [y for _, y in points]
        note = f" (diverged in epoch {run.diverged_in})" if run.diverged_in else ""
        label = f"rate {run.trial.rate:g}{note}" if labelled else None
        marker = "o" if len(points) == 1 else None
        colour = COLOURS[run.trial.optimizer]
        axes.plot(x, y, color=colour, linestyle=line, linewidth=1.6, alpha=alpha, label=label, marker=marker, ms=3)
        if run.diverged_in and points and labelled:
            axes.plot(x[-1], y[-1], "x", color=colour)


def _star(axes: Axes, best: Run, height: float, above: bool) -> None:
    if not math.isfinite(height):
        return
    place = best.history[-1].epoch, height
    axes.plot(*place, "*", color="#e8a200", markeredgecolor=INK, markeredgewidth=0.6, markersize=15, zorder=5)
    text = f"best: rate {best.trial.rate:g}, {best.history[-1].validation_accuracy:.2%}"
    shift = (4, 11) if above else (4, -19)
    label = axes.annotate(text, place, xytext=shift, textcoords="offset points", ha="right", fontsize=8.5, color=INK)
    label.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1})

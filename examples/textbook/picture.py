"""How pictures look: colours that can be read on white and on black, since pages have either background."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

INK = "#7d7d7d"  # text and axes: contrast 4.1 on white, 4.6 on GitHub's black
BLUE, ORANGE, GREEN, RED, PURPLE, BROWN, PINK, CYAN = COLOURS = (
    "#3b82d0",
    "#cf6f12",
    "#2b9348",
    "#d9483b",
    "#9a62d3",
    "#a5743a",
    "#d14d94",
    "#138d9c",
)
METHODS = {  # an optimizer has one colour in all pictures
    "SGD": BLUE,
    "momentum": ORANGE,
    "Nesterov": GREEN,
    "Adam": RED,
    "AdamW": PURPLE,
    "Lion": CYAN,
    "RMSprop": BROWN,
    "AdaGrad": PINK,
    "Newton": INK,
    "LAMB": "#a88600",
    "Adafactor": "#6b7f1f",
}
BYTES = 100_000  # a picture larger than this does not belong into a repository


def panels(
    columns: int = 1, rows: int = 1, *, width: float = 4.2, height: float = 3.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure and its axes, an array of shape `[rows, columns]`; sizes in inches per panel."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in grid.flat:
        style(axes)
    return figure, grid


def style(axes: Axes) -> None:
    """The house's axes: thin grey, no box, a transparent ground."""
    axes.set_facecolor("none")
    axes.grid(color=INK, alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color(INK)
    axes.tick_params(which="both", colors=INK, labelsize=8)
    for text in (axes.title, axes.xaxis.label, axes.yaxis.label):
        text.set_color(INK)
        text.set_fontsize(9)


def label(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Title and names of the axes."""
    axes.set_title(title, color=INK, fontsize=10, fontweight="bold")
    axes.set_xlabel(x, color=INK, fontsize=9)
    axes.set_ylabel(y, color=INK, fontsize=9)


def legend(axes: Axes, **options: Any) -> None:
    """A legend without a box."""
    axes.legend(**{"frameon": False, "fontsize": 8, "labelcolor": INK, "handlelength": 1.8} | options)


def spread(axes: Axes, x: Any, runs: Any, colour: str, name: str, **options: Any) -> None:
    """The median over runs as a line, their range as a band. `runs`: `[runs, points]`; NaN is left out."""
    runs = np.where(np.isfinite(runs), runs, np.nan)
    seen = np.isfinite(runs).any(axis=0)
    x, runs = np.asarray(x)[seen], runs[:, seen]
    axes.plot(x, np.nanmedian(runs, axis=0), color=colour, label=name, linewidth=1.6, **options)
    axes.fill_between(x, np.nanmin(runs, axis=0), np.nanmax(runs, axis=0), color=colour, alpha=0.18, linewidth=0)


def differences(axes: Axes, names: list[str], middle: Any, half: Any, *, more_is_better: bool = False) -> None:
    """A row for each name: a difference and its interval, in colour where that leaves out 0, green where it is good."""
    places, good = range(len(names)), (middle > 0) == more_is_better
    colours = np.where(abs(middle) <= half, INK, np.where(good, GREEN, RED)).tolist()
    axes.hlines(places, middle - half, middle + half, colors=colours, linewidth=1.6)
    axes.scatter(middle, places, c=colours, s=18)
    axes.axvline(0, color=INK, linewidth=1)
    axes.set_yticks(places, names)
    axes.locator_params(axis="x", nbins=5)


def save(figure: Figure, path: Path) -> Path:
    """Writes a PNG with a transparent ground and 256 colours, the same bytes whenever it is drawn.

    Raises:
      ValueError: it has more than `BYTES` bytes.
    """
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=110, transparent=True)
    Image.open(drawn).quantize(256, method=Image.Quantize.FASTOCTREE).save(path, optimize=True)
    if (size := path.stat().st_size) > BYTES:
        raise ValueError(f"{path} has {size:,} bytes, more than {BYTES:,}: draw fewer points or rasterize less.")
    return path

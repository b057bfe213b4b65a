"""What a study is: something measured, told in tables and sentences, and drawn.

A program of this folder has two functions, `measure(quick)`, which computes, and `report(found)`, which tells; its last
line hands the module to `run`.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from matplotlib.figure import Figure

from examples.textbook import picture
from examples.train_resnet.report import device


class Table(NamedTuple):
    """Rows of a table. Numbers are printed with four digits; write strings for anything else."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


class Report(NamedTuple):
    """What a study found.

    Attributes:
      tables: the numbers.
      figures: pictures by file name, without its ending; a study's first is called as the study.
      findings: sentences that say what the numbers show, made from the numbers.
    """

    tables: Sequence[Table]
    figures: dict[str, Figure]
    findings: Sequence[str] = ()


def main(*names: str, arguments: Sequence[str] | None = None) -> int:
    """The command line of some studies: measures, prints, and writes each one's pictures and page.

    Args:
      *names: modules of this folder.
      arguments: of the command line; None: those that the program was started with.
    """
    modules = [importlib.import_module(f"examples.textbook.{name}") for name in names]
    parser = argparse.ArgumentParser(description=modules[0].__doc__ if len(names) == 1 else __doc__)
    parser.add_argument("--quick", action="store_true", help="small: it shows that a study runs, not what is true")
    parser.add_argument("--out", type=Path, default=Path("runs/textbook"), help="folder for pictures (%(default)s)")
    options = parser.parse_args(arguments)
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        print(f"--out {options.out}: {error.strerror}", file=sys.stderr)
        return 2
    if options.quick:  # most of the time goes into compiling
        jax.config.update("jax_disable_most_optimizations", True)
    for name, module in zip(names, modules, strict=True):
        start = time.perf_counter()
        told = module.report(module.measure(options.quick))
        shown = [picture.save(figure, options.out / f"{stem}.png") for stem, figure in told.figures.items()]
        title, _, about = (module.__doc__ or name).partition("\n\n")
        command = f"python -m examples.textbook.{name}{' --quick' if options.quick else ''}"
        took = f"`{command}`: {time.perf_counter() - start:.0f} seconds"
        where = f"JAX {jax.__version__}, {device()}, {time.strftime('%Y-%m-%d')}."
        images = "\n".join(f"![{path.stem}]({path.name})" for path in shown)
        page = options.out / f"{name}.md"
        parts = [f"# {title.rstrip('.')}", about.strip(), images, markdown(told), f"{took}, {where}"]
        page.write_text("\n\n".join(part for part in parts if part) + "\n")
        print(f"{title}\n\n{markdown(told)}\n\n{took}; wrote {', '.join(map(str, [*shown, page]))}\n")
    return 0


def markdown(told: Report) -> str:
    """The tables and sentences of a report."""
    return "\n\n".join([*[f"**{table.title}**\n\n{_grid(table)}" for table in told.tables], *told.findings])


def _grid(table: Table) -> str:
    cells = [[_shown(x).replace("|", r"\|") for x in row] for row in (table.columns, *table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.columns))]
    line = lambda row: "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([line(cells[0]), rule, *map(line, cells[1:])])


def _shown(x: Any) -> str:
    return x if isinstance(x, str) else f"{x:.4g}"

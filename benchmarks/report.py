"""What the benchmarks share: their arguments, tables that print as they grow, and the sections of RESULTS.md."""

import argparse
import datetime
import os
import platform
from collections.abc import Callable, Collection, Sequence
from importlib import metadata
from pathlib import Path

import jax

from benchmarks import trees
from benchmarks.recipes import RECIPES
from gradtx.placement import joins_loops

RESULTS = Path(__file__).with_name("RESULTS.md")


def argument_parser(
    module: str, description: str, default_trees: Sequence[str], recipes: Collection[str] = RECIPES
) -> argparse.ArgumentParser:
    """The arguments that every benchmark takes: which recipes, which trees if any, and where to write the section."""

    def recipe(name: str) -> str:
        if name not in recipes:
            raise ValueError(f"no recipe {name!r}: choose from {', '.join(recipes)}")
        return name

    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--recipes",
        type=list_of(recipe),
        default=list(recipes),
        metavar="NAME,...",
        help=f"of {', '.join(recipes)}; all by default",
    )
    if default_trees:
        parser.add_argument(
            "--trees",
            type=list_of(_tree),
            default=list(default_trees),
            metavar="NAME[:WIDTH],...",
            help=f"of {', '.join(trees.TREES)}; {','.join(default_trees)} by default",
        )
    parser.add_argument(
        "--write",
        nargs="?",
        type=Path,
        const=RESULTS,
        metavar="FILE",
        help="write the section of this benchmark into FILE, benchmarks/RESULTS.md by default",
    )
    return parser


def _tree(name: str) -> str:
    trees.build(name)
    return name


def list_of(check: Callable[[str], str]) -> Callable[[str], list[str]]:
    """The parser of names with commas between them, each of which `check` returns or raises a ValueError for."""

    def parse(text: str) -> list[str]:
        try:
            return [check(name.strip()) for name in text.split(",")]
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse


class Table:
    """A table of text that prints its head at once and each row as it comes."""

    def __init__(self, title: str, columns: Sequence[str]) -> None:
        self.title = title
        self.rows = [list(columns)]
        self.widths = [max(len(column), 9) for column in columns]
        print(f"\n{title}\n{self._line(columns)}", flush=True)

    def add(self, *cells: str) -> None:
        self.rows.append(list(cells))
        print(self._line(cells), flush=True)

    def _line(self, cells: Sequence[str]) -> str:
        first, *rest = (cell.rjust(width) for cell, width in zip(cells, self.widths, strict=True))
        return "  ".join([cells[0].ljust(len(first) + 1), *rest])

    def markdown(self) -> str:
        head, *rows = ("| " + " | ".join(row) + " |" for row in self.rows)
        rule = "|---|" + "---:|" * (len(self.rows[0]) - 1)
        return "\n".join([f"### {self.title}", "", head, rule, *rows])


def section(command: str, explanation: str, tables: Sequence[Table], packages: Sequence[str] = ()) -> str:
    """The body of a section: the command and the machine, what was measured, the tables."""
    head = f"`{command}`  \n{environment(packages)}"
    return "\n\n".join([head, explanation, *(table.markdown() for table in tables)])


def environment(more: Sequence[str] = ()) -> str:
    """One line: date, machine, versions of the packages that every benchmark uses and of `more`."""
    packages = ", ".join(f"{name} {_version(name)}" for name in ("jax", "jaxlib", "optax", "gradtx", *more))
    device = jax.devices()[0]
    accelerator = "" if device.platform == "cpu" else f", {device.device_kind}"
    return (
        f"{datetime.date.today()}, {_cpu_model()}, {os.cpu_count()} cores{accelerator}, {platform.system()}, "
        f"Python {platform.python_version()}, {packages}"
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def in_this_mode(heading: str) -> str:
    """The heading of a section about XLA as it is asked to compile here: `placement.joins_loops`."""
    return f"{heading}, loops joined" if joins_loops() else heading


def write_section(path: Path, heading: str, body: str) -> None:
    """Replaces the section with that heading, or adds it; leaves the others as they are."""
    text = path.read_text(encoding="utf-8") if path.exists() else "# Benchmark results\n"
    preamble, *rest = text.split("\n## ")
    sections = {part.partition("\n")[0]: part.partition("\n")[2].strip("\n") for part in rest}
    sections[heading] = body.strip("\n")
    parts = [preamble.strip("\n"), *(f"## {name}\n\n{content}" for name, content in sections.items())]
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"\nWrote the section {heading!r} of {path}.")

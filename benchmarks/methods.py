"""The table of methods, from the catalogue and the docstrings: what each does, keeps and reads, and its source.

Usage: python -m benchmarks.methods [--write [FILE]]     prints it, or writes docs/methods.md
"""

import argparse
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradtx
from benchmarks.catalogue import CATALOGUE

PAGE = Path(__file__).parents[1] / "docs" / "methods.md"

HEAD = """# Methods

Every transformation of gradtx, written from the catalogue and the docstrings by `python -m benchmarks.methods --write`.
State is per float32 parameter. *Moves* is what a compiled step moves, and its temporary buffers, in bytes per parameter
on a CPU: reading gradients and parameters and writing parameters is 12, each slot of state 8 more. *Joined* is the same
where XLA is asked to join loops ([speed.md](speed.md#loops-joined)). `help(gradtx.NAME)` has the formula.
"""

ROOMS = {
    "optimizers": "Optimizers and what they are made of",
    "transforms": "Transforms: one idea each",
    "combine": "Transformations made of transformations",
    "labels": "By groups of parameters",
    "communication": "Between devices: methods that send less than the gradients",
}


def names() -> dict[str, Callable]:
    """The public transformations of the catalogue, in its order."""
    found = dict.fromkeys(name.split()[0].removeprefix("contrib.") for name in CATALOGUE if "+" not in name)
    return {name: getattr(gradtx, name) for name in found}


def section(text: str, title: str) -> str:
    """The first sentence that a docstring says after "State: ", "Reads: " or "Source: "."""
    match = re.search(rf"\b{title}: (.*?)(?=\s(?:Reads|Source):\s|\n\S|\n\n|\Z)", text, re.S)
    sentence = re.split(r"(?<!et al)\. (?=[A-Z])", re.sub(r"\s+", " ", match[1]))[0] if match else ""
    return sentence.strip().rstrip(".;").replace(" per float32 parameter", "")


def told(x: Any, title: str) -> str:
    """The section of a docstring; of an alias that has none, that of the transformation to which it points."""
    text = inspect.getdoc(x) or ""
    found = section(text, title)
    ways = ("(?:Other arguments|Others|Arguments|Deprecated): %", "^% with", "^What % returns", "as in (?=`scale_by)%")
    pointed = re.search("|".join(ways).replace("%", r"`(\w+)`"), text)
    if not found and pointed:
        return told(getattr(gradtx, next(filter(None, pointed.groups()))), title)
    return found


def row(name: str, x: Any) -> list[str]:
    """The cells of a table: name, purpose, state, what it reads, bytes moved in either mode, source."""
    entry = next((entry for key, entry in CATALOGUE.items() if key.removeprefix("contrib.") == name), None)
    purpose = (inspect.getdoc(x) or "").splitlines()[0]
    purpose = re.split(r" Others?(?: arguments)?: | Source: ", purpose)[0].rstrip(".:")
    moved = [f"{cost[0]:g}, {cost[1]:g}" if cost else "" for cost in (entry.moves, entry.joined)] if entry else ["", ""]
    cells = [f"`{name}`", purpose, told(x, "State"), told(x, "Reads"), *moved, told(x, "Source")]
    return [cell.replace("|", "\\|") for cell in cells]


def page() -> str:
    """The whole page."""
    rows: dict[str, list[list[str]]] = {room: [] for room in ROOMS}
    for name, x in names().items():
        rows[x.__module__.split(".")[1]].append(row(name, x))
    parts = [HEAD]
    for room, title in ROOMS.items():
        table = [["", "what it does", "state", "reads", "moves", "joined", "source"], ["---"] * 7, *rows[room]]
        parts.append(f"## {title}\n\n" + "\n".join(f"| {' | '.join(cells)} |" for cells in table) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.methods", description=str(__doc__).splitlines()[0])
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, help="the file, docs/methods.md by default")
    args = parser.parse_args()
    if args.write:
        args.write.write_text(page())
    else:
        print(page())


if __name__ == "__main__":
    main()

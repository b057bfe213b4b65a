"""The tables of docs/scaling.md: what each method's update says, measured, and what follows for larger models.

Usage: python -m benchmarks.scaling [--write [FILE]]     prints them, or writes them into docs/scaling.md
"""

import argparse
import math
import re
from collections.abc import Callable
from pathlib import Path

import jax

from benchmarks.arithmetic import (
    BATCH,
    DEVICES,
    MEMORY,
    METHODS,
    MODELS,
    Message,
    Model,
    divided,
    orthogonalizing,
    passes,
    seconds,
)
from benchmarks.on_mesh import UPDATES, Update, attempt, cells, update_of
from benchmarks.recipes import LIBRARIES, build

PAGE = Path(__file__).parents[1] / "docs" / "scaling.md"
TABLE = re.compile(r"(<!-- benchmarks\.scaling: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

MEASURED = ("adamw", "clip+adamw", "lamb", "adafactor", "contrib.muon")


def cell(state: float | None, messages: list[tuple[Message, int]], share: float) -> str:
    """Gigabytes of state if there are any, megabytes sent, and the time in percent of the passes'."""
    sent = sum(message.sent / every for message, every in messages) / 1e6
    parts = [] if state is None else [f"{_number(state / 1e9)} GB"]
    return ", ".join([*parts, f"{_number(sent)} MB", f"{_number(100 * share)} %"])


def row(name: str, model: Model) -> list[str]:
    """A method's cells, for each number of devices; last, the tokens whose passes take as long as the method."""
    method, found, least = METHODS[name], [name], math.nan
    for devices in DEVICES:
        parts = min(model.copy, devices)
        copies = devices // parts
        if model.parameters_and_gradients(parts) + method.state(model, parts) > MEMORY:
            found.append("too large")
            continue
        within = method.update(model, parts, copies)
        between = method.between(model, copies, parts) if copies > 1 else []
        time = seconds(within) + seconds(between, method.every)
        time += orthogonalizing(model, parts, copies) if method.spectral else 0
        messages = [*((x, 1) for x in within), *((x, method.every) for x in between)]
        found.append(cell(method.state(model, parts), messages, time / passes(model, BATCH / devices)))
        least = time / passes(model, 1)
    return [*found, f"{math.ceil(least):,}"]


def fsdp(model: Model) -> list[str]:
    """The cells of FSDP itself, whatever the method."""
    found = ["FSDP itself"]
    for devices in DEVICES:
        said = divided(model, min(model.copy, devices), BATCH / devices)
        share = seconds(said) / passes(model, BATCH / devices)
        fits = model.parameters_and_gradients(min(model.copy, devices)) <= MEMORY
        found.append(cell(None, [(x, 1) for x in said], share) if fits else "too large")
    return [*found, f"{math.ceil(seconds(divided(model, model.copy, 1)) / passes(model, 1)):,}"]


def _number(x: float) -> str:
    if 0 < x < 0.01:
        return "< 0.01"
    return "0" if x == 0 else f"{x:,.0f}" if x >= 10 else f"{x:.2g}"


def arithmetic(model: Model) -> str:
    """The table of a model."""
    head = [f"{model.name}, a copy on {model.copy}", *(f"{n:,} devices" for n in DEVICES), "tokens"]
    return markdown([head, *(row(name, model) for name in METHODS), fsdp(model)])


def measured() -> str:
    """The table of what compiled updates say, of both libraries."""
    head = ["", *(f"{layout}: {library}" for layout in UPDATES for library in ("gradtx", "Optax"))]
    txs = [(name.removeprefix("contrib."), [build(name, lib) for lib in LIBRARIES]) for name in MEASURED]
    rows = [head]
    for name, pair in txs:
        found = [name]
        for layout in UPDATES:
            for lib, tx in zip(LIBRARIES, pair, strict=True):
                found.append(said(attempt(lambda lib=lib, tx=tx, layout=layout: update_of(lib, tx, layout))))
        rows.append(found)
    return markdown(rows)


def said(update: Update | str) -> str:
    """A cell: collectives, and the bytes of their results."""
    what = cells(update)[0]
    return what if isinstance(update, str) or not update.bytes else f"{what}: {bytes_(update.bytes)}"


def bytes_(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB" if count >= 1e3 else f"{count} B"


def markdown(rows: list[list[str]]) -> str:
    rule = ["---", *["---:"] * (len(rows[0]) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [rows[0], rule, *rows[1:]]) + "\n"


def tables() -> dict[str, Callable[[], str]]:
    """What writes each table, by its name on the page."""
    found: dict[str, Callable[[], str]] = {"collectives": measured}
    return found | {f"of_{model.name}": lambda model=model: arithmetic(model) for model in MODELS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=str(__doc__).splitlines()[0])
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, help="the file, docs/scaling.md by default")
    args = parser.parse_args()
    jax.config.update("jax_num_cpu_devices", 8)
    texts = {name: write() for name, write in tables().items()}
    if not args.write:
        print("\n".join(texts.values()))
        return
    page = args.write.read_text(encoding="utf-8")
    args.write.write_text(TABLE.sub(lambda found: found[1] + texts[found[2]] + found[3], page), encoding="utf-8")


if __name__ == "__main__":
    main()

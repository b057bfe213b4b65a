"""Wall time of each method's compiled step as a ratio to Optax's, the two taken in turns in one process.

Usage: python -m benchmarks.step_time [--recipes adamw,lion] [--trees gpt2-12:256] [--repetitions 30] [--write [FILE]]
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax

from benchmarks import report, trees
from benchmarks.recipes import LIBRARIES, RECIPES, step_of

HEADING = "Step time"

# GPT-2's widths are cut so that two copies of parameters and state fit into 2 GB.
DEFAULT_TREES = ("leaf", "gpt2-6:256", "gpt2-12:256", "small")

DESCRIPTION = "Wall time of each method's compiled step as a ratio to Optax's, the two taken in turns in one process."

EXPLANATION = """\
Milliseconds of the compiled step, from the call until the result is ready, with params and state donated: one step of
gradtx, one of Optax, and so on, {repetitions} of each in one process. *Min* and *median* are over these, gradtx first,
then Optax. *Ratio* is Optax's time over gradtx's, above 1 where gradtx is faster: of the two minima, and the
median over neighbouring steps. Wall time depends on the machine and its load; where the two ratios differ much, it was
busy with something else."""


class Runner:
    """One library's compiled step with the parameters and state it works on."""

    def __init__(self, library: ModuleType, recipe: str, params: Any, grads: Any) -> None:
        tx = RECIPES[recipe](library)
        self.params = jax.tree.map(lambda x: x.copy(), params)  # donated to the first step
        self.state = jax.jit(tx.init)(params)
        self.grads = grads
        self.step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def seconds(self) -> float:
        """Takes one step and returns how long it took."""
        start = time.perf_counter()
        self.params, self.state = jax.block_until_ready(self.step(self.params, self.state, self.grads))
        return time.perf_counter() - start


def measure(recipe: str, shapes: Any, repetitions: int) -> list[tuple[float, float]]:
    """The seconds of neighbouring steps of gradtx and of Optax."""
    jax.clear_caches()  # lets go of the programs of the recipe before
    params, grads = (fill(shapes, seed) for seed in (0, 1))
    ours, theirs = (Runner(library, recipe, params, grads) for library in LIBRARIES)
    for _ in range(3):  # compilation, and memory touched for the first time
        ours.seconds()
        theirs.seconds()
    return [(ours.seconds(), theirs.seconds()) for _ in range(repetitions)]


def fill(shapes: Any, seed: int) -> Any:
    """Normally distributed arrays with a tree's shapes and GPT-2's initial deviation."""
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    arrays = [0.02 * jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return structure.unflatten(arrays)


def summary(pairs: list[tuple[float, float]]) -> list[str]:
    """The cells of a row: minimum and median of both, ratio of the minima, median of the ratios."""
    ours, theirs = zip(*pairs, strict=True)
    times = [1e3 * of(seconds) for of in (min, statistics.median) for seconds in (ours, theirs)]
    ratios = [min(theirs) / min(ours), statistics.median(b / a for a, b in pairs)]
    return [*(f"{x:.2f}" for x in times), *(f"{x:.2f}" for x in ratios)]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table per tree, and writes them into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    parser = report.argument_parser("benchmarks.step_time", DESCRIPTION, DEFAULT_TREES)
    parser.add_argument("--repetitions", type=_count, default=30, metavar="N", help="steps of each; 30 by default")
    args = parser.parse_args(argv)
    tables = []
    for name in args.trees:
        columns = ["min", "Optax", "median", "Optax", "ratio min", "ratio median"]
        table = report.Table(trees.describe(name), ["recipe", *columns])
        for recipe in args.recipes:
            table.add(recipe, *summary(measure(recipe, trees.build(name), args.repetitions)))
        tables.append(table)
    if args.write:
        command = " ".join(["python -m benchmarks.step_time", *argv])
        explanation = EXPLANATION.format(repetitions=args.repetitions)
        report.write_section(args.write, HEADING, report.section(command, explanation, tables))


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()

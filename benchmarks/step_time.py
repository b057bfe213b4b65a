"""Wall time of each method's compiled step beside Optax's and torch.optim's, all taken in turns in one process.

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

from benchmarks import report, torch_steps, trees
from benchmarks.recipes import LIBRARIES, build, step_of
from benchmarks.torch_steps import TorchRunner

HEADING = "Step time"

# GPT-2's widths are cut so that four copies of parameters and state fit into 2 GB.
DEFAULT_TREES = ("leaf", "gpt2-6:256", "gpt2-12:256", "small")

DESCRIPTION = "Wall time of each method's step beside Optax's and torch.optim's, all taken in turns in one process."

WARMUP = 3  # steps that are not counted: compilation, and memory touched for the first time

EXPLANATION = """\
Milliseconds of a step, from the call until the result is ready: a compiled step of gradtx, with params and state
donated, one of Optax, one of torch.optim fused and one foreach, {repetitions} of each in one process, in turns,
in reverse every other time. Times are medians. *Ratio* is the other's time over gradtx's, above 1 if gradtx is faster:
the median over neighbouring steps, and for Optax also the ratio of the two minima. A dash is a method, or its fused
form, that torch.optim does not have on the CPU. torch has a thread per core, with OMP_WAIT_POLICY=PASSIVE: spinning
threads would take a core from whoever runs next. Wall time depends on the machine and its load; where the two ratios
differ much, it was busy with something else."""

WITHOUT_TORCH = f"torch is not installed, so its columns hold dashes: {torch_steps.INSTALL}."

COLUMNS = ["gradtx ms", "Optax ms", "ratio", "ratio min", "fused ms", "ratio", "foreach ms", "ratio"]


class Runner:
    """One library's compiled step with the parameters and state it works on."""

    def __init__(self, library: ModuleType, recipe: str, params: Any, grads: Any) -> None:
        tx = build(recipe, library)
        self.params = jax.tree.map(lambda x: x.copy(), params)  # donated to the first step
        self.state = jax.jit(tx.init)(params)
        self.grads = grads
        self.step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def seconds(self) -> float:
        """Takes one step and returns how long it took."""
        start = time.perf_counter()
        self.params, self.state = jax.block_until_ready(self.step(self.params, self.state, self.grads))
        return time.perf_counter() - start


def measure(recipe: str, shapes: Any, repetitions: int) -> dict[str, list[float]]:
    """The seconds of neighbouring steps of gradtx, Optax and each form of torch's optimizer."""
    jax.clear_caches()  # lets go of the programs of the recipe before
    params, grads = (fill(shapes, seed) for seed in (0, 1))
    runners: dict[str, Runner | TorchRunner] = {
        library.__name__: Runner(library, recipe, params, grads) for library in LIBRARIES
    }
    runners |= {form: TorchRunner(form, recipe, params, grads) for form in torch_steps.forms(recipe)}
    times: dict[str, list[float]] = {name: [] for name in runners}
    for i in range(WARMUP + repetitions):
        for name in list(runners)[:: 1 if i % 2 else -1]:  # nobody always runs after the same one
            times[name].append(runners[name].seconds())
    return {name: seconds[WARMUP:] for name, seconds in times.items()}


def fill(shapes: Any, seed: int) -> Any:
    """Normally distributed arrays with a tree's shapes and GPT-2's initial deviation."""
    leaves, structure = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    arrays = [0.02 * jax.random.normal(key, x.shape, x.dtype) for key, x in zip(keys, leaves, strict=True)]
    return structure.unflatten(arrays)


def summary(times: dict[str, list[float]]) -> list[str]:
    """The cells of a row: medians in milliseconds and ratios."""
    ours = times["gradtx"]

    def compare(name: str) -> list[float | None]:
        if name not in times:
            return [None, None]
        return [
            1e3 * statistics.median(times[name]),
            statistics.median(b / a for a, b in zip(ours, times[name], strict=True)),
        ]

    ratio_of_minima = min(times["optax"]) / min(ours)
    others = [*compare("optax"), ratio_of_minima, *compare("fused"), *compare("foreach")]
    return ["-" if x is None else f"{x:.2f}" for x in (1e3 * statistics.median(ours), *others)]


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table per tree, and writes them into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    parser = report.argument_parser("benchmarks.step_time", DESCRIPTION, DEFAULT_TREES)
    parser.add_argument("--repetitions", type=_count, default=30, metavar="N", help="steps of each; 30 by default")
    args = parser.parse_args(argv)
    notes = [EXPLANATION.format(repetitions=args.repetitions)]
    if not torch_steps.installed():
        notes.append(WITHOUT_TORCH)
        print(WITHOUT_TORCH)
    tables = []
    for name in args.trees:
        table = report.Table(trees.describe(name), ["recipe", *COLUMNS])
        for recipe in args.recipes:
            table.add(recipe, *summary(measure(recipe, trees.build(name), args.repetitions)))
        tables.append(table)
    if args.write:
        command = " ".join(["python -m benchmarks.step_time", *argv])
        section = report.section(command, "\n\n".join(notes), tables, ["torch"])
        report.write_section(args.write, report.in_this_mode(HEADING), section)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"must be a positive whole number, got {text!r}")
    return int(text)


if __name__ == "__main__":
    main()

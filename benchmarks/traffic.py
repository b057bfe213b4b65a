"""Memory traffic and compile time of each method's compiled step, beside Optax. Nothing is run or allocated.

Usage: python -m benchmarks.traffic [--recipes adamw,lion] [--trees gpt2-12,small:32] [--write [FILE]]
"""

import itertools
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import jax

from benchmarks import report, trees
from benchmarks.recipes import LIBRARIES, MEASURED, RECIPES, build, step_of
from gradtx.placement import JOINING, joins_loops

Result = TypeVar("Result")

HEADING = "Memory traffic and compile time"

DEFAULT_TREES = ("leaf", "gpt2-6")

DESCRIPTION = "Memory traffic and compile time of each method's compiled step, beside Optax."

EXPLANATION = """\
The compiled program is `updates, state = tx.update(grads, state, params); params = apply_updates(params, updates)`,
with params and state donated and returned in that order and `tx` closed over; nothing is run. With `tx` an argument of
the step instead, the bytes are the same.

*Bytes* is XLA's count of bytes accessed, read and written, and *temp* the size of its temporary buffers, both per
float32 parameter; they are exact and repeat to the last digit. Reading gradients and parameters once, writing
parameters once, and reading and writing each slot of state once is 12 bytes and 8 more per slot. *Trace*, *lower* and
*compile* are seconds after clearing JAX's caches, for trace the median of three; they vary with the machine's load.
In each pair of columns gradtx comes first, then Optax, if it has the method. *Ratio* is the sum of the three over
Optax's, below 1 where gradtx is faster."""


EXPLANATION_JOINED = f"""\
As above, XLA's CPU compiler asked to join loops: `XLA_FLAGS=--xla_backend_extra_options={JOINING}`."""


class Cost(NamedTuple):
    """What one compiled step costs."""

    bytes_accessed: float  # per parameter
    temporary: float  # bytes per parameter
    trace: float  # seconds
    lower: float
    compile: float


def memory_cost(compiled: jax.stages.Compiled, parameters: int) -> tuple[float, float]:
    """The bytes that a compiled step accesses, and those of its temporary buffers, both per parameter."""
    accessed: Any = compiled.cost_analysis()
    memory: Any = compiled.memory_analysis()
    return accessed["bytes accessed"] / parameters, memory.temp_size_in_bytes / parameters


def measure(library: ModuleType, recipe: str, params: Any, traces: int = 3) -> Cost:
    """Compiles one step for a tree of shapes."""
    tx = build(recipe, library)
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))

    def trace() -> tuple[float, jax.stages.Traced]:
        jax.clear_caches()
        return timed(lambda: step.trace(params, state, params))

    trace_seconds, traced = zip(*(trace() for _ in range(traces)), strict=True)
    lower_seconds, lowered = timed(traced[-1].lower)
    compile_seconds, compiled = timed(lowered.compile)
    memory = memory_cost(compiled, trees.size(params))
    return Cost(*memory, statistics.median(trace_seconds), lower_seconds, compile_seconds)


def timed(fn: Callable[[], Result]) -> tuple[float, Result]:
    """The seconds that a call takes, and what it returns."""
    start = time.perf_counter()
    result = fn()
    return time.perf_counter() - start, result


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table per tree, and writes them into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    args = report.argument_parser("benchmarks.traffic", DESCRIPTION, DEFAULT_TREES, MEASURED).parse_args(argv)
    jax.jit(lambda x: x + 1).lower(1.0).compile()  # what the first compilation of a process loads is nobody's cost
    tables = []
    for name in args.trees:
        columns = [label for title in ("bytes", "temp", "trace", "lower", "compile") for label in (title, "Optax")]
        columns.append("ratio")
        table = report.Table(trees.describe(name), ["recipe", *columns])
        for recipe in args.recipes:
            libraries = LIBRARIES if recipe in RECIPES else LIBRARIES[:1]
            costs = [measure(library, recipe, trees.build(name)) for library in libraries]
            seconds = [cost.trace + cost.lower + cost.compile for cost in costs]
            pairs = [*zip(*costs, strict=True), [seconds[0] / seconds[-1]] if len(seconds) > 1 else []]
            cells = [[f"{x:.2f}" for x in pair] + [""] * (len(LIBRARIES) - len(pair)) for pair in pairs]
            table.add(recipe, *itertools.chain(*cells[:-1], cells[-1][:1]))
        tables.append(table)
    if args.write:
        command = " ".join(["python -m benchmarks.traffic", *argv])
        section = report.section(command, EXPLANATION_JOINED if joins_loops() else EXPLANATION, tables)
        report.write_section(args.write, report.in_this_mode(HEADING), section)


if __name__ == "__main__":
    main()

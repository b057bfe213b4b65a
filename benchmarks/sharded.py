"""Training along several devices with pmap, jit and shard_map side by side, and what each method's update says there.

On a CPU eight virtual devices are made. On one real device nothing is divided: pmap is compared with jit there.

Usage: python -m benchmarks.sharded [--recipes adamw,lamb] [--layers 1] [--batch 64] [--repetitions 15] [--write [FILE]]
"""

import statistics
import sys
import time
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np

from benchmarks import report
from benchmarks.collectives import collectives
from benchmarks.compilations import compilations
from benchmarks.on_mesh import SHORT, UPDATES, attempt, cells, update_of
from benchmarks.recipes import LIBRARIES, build
from benchmarks.training import Program, batch_of, settings

HEADING = "Several devices"

DESCRIPTION = (
    "Training along several devices with pmap, jit and shard_map side by side, and what each update says there."
)

TIMED = ("adamw", "lamb", "adafactor", "contrib.muon")

WARMUP = 3  # steps that are not timed, and whose compilations are counted

EXPLANATION = """\
*Training*: `benchmarks/training.py` trains the layers of `benchmarks/collectives.py`, {layers} of them, on {batch}
vectors, in each way that JAX has. *Ratio* is a step's time over that of pmap: the median over neighbouring steps, all
ways in turns in one process, {repetitions} steps of each. Virtual devices share the cores of one CPU: there a ratio
tells how much work all devices do together, copies of what is replicated included, and nothing of a network.
*Collectives* are those of the compiled step, backward pass included (AR all-reduce, AG all-gather, RS reduce-scatter,
A2A all-to-all, CP collective-permute), *bytes* those of their results and *state* those of the optimizer's state,
both on one device. XLA on the CPU makes no reduce-scatter of an all-reduce and a slice. *Programs* are what XLA
compiled in the first three steps. *Apart* is the largest difference of a parameter to pmap's after these three steps,
in learning rates. shard_map has FSDP and ZeRO-1 written out by hand, for a method that works entry by entry.

*Updates*: the part of a step after the gradients, of the 24 leaves (42 MB) in `benchmarks/collectives.py`, which lie
divided over 8 devices (FSDP), over 4 x 2, or replicated with an eighth of the state on each device (ZeRO-1, where the
gather of the new parameters is counted too). gradtx is compiled by `gradtx.sharding.jit_update`, Optax by `jax.jit`
with the state where `gradtx.sharding` puts it; nothing is run. In each pair of columns gradtx comes first. A dash is
a method that Optax does not have."""


def run(program: Program) -> Program:
    """The program after one step."""
    params, state = jax.block_until_ready(program.step(program.params, program.state, program.batch))
    return program._replace(params=params, state=state)


def bytes_on_one_device(tree: Any) -> int:
    first = jax.devices()[0]
    return sum(part.data.nbytes for x in jax.tree.leaves(tree) for part in x.addressable_shards if part.device == first)


def host(tree: Any, like: Any) -> list:
    """The parameters as NumPy arrays, those of pmap without the leading dimension."""
    arrays = map(np.asarray, jax.tree.leaves(tree))
    return [x[0] if x.ndim > y.ndim else x for x, y in zip(arrays, jax.tree.leaves(like), strict=True)]


def measure(method: str, layers: int, batch: int, repetitions: int, rate: float = 1e-3) -> list[list[str]]:
    """The rows of a method: setting, ratio, collectives and their bytes, state bytes, programs, distance."""
    data = batch_of(batch)
    programs, known, ends = {}, {}, {}
    for name, make in settings(method).items():
        program = make(build(method, LIBRARIES[0]), layers, data)
        found = collectives(program.step.lower(program.params, program.state, program.batch).compile())
        jax.clear_caches()
        with compilations() as compiled:
            for _ in range(WARMUP):
                program = run(program)
        known[name] = [
            ", ".join(f"{n.operations} {SHORT[kind]}" for kind, n in sorted(found.items())) or "none",
            f"{sum(n.bytes for n in found.values()):,}",
            f"{bytes_on_one_device(program.state):,}",
            str(len(compiled)),
        ]
        programs[name], ends[name] = program, program.params
    first, *_ = programs
    plain = host(ends[first], programs[list(programs)[-1]].params)
    for name, params in ends.items():
        apart = max(np.abs(x - y).max() for x, y in zip(plain, host(params, plain), strict=True))
        known[name].append(f"{apart / rate:.0e}")
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    for i in range(repetitions):
        for name in list(programs)[:: 1 if i % 2 else -1]:  # nobody always runs after the same one
            start = time.perf_counter()
            programs[name] = run(programs[name])
            seconds[name].append(time.perf_counter() - start)

    def ratio(name: str) -> str:
        return f"{statistics.median(b / a for a, b in zip(seconds[first], seconds[name], strict=True)):.2f}"

    return [[name, ratio(name), *known[name]] for name in programs]


def facts(library: ModuleType, recipe: str, layout: str) -> list[str]:
    """What is known of an update: collectives, their bytes, the state; dashes where there is no such method."""
    try:
        tx = build(recipe, library)
    except AttributeError:
        return ["-"] * 3
    return cells(attempt(lambda: update_of(library, tx, layout)))


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the tables, and writes them into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    parser = report.argument_parser("benchmarks.sharded", DESCRIPTION, ())
    for name, default, what in (
        ("layers", 1, "of the model that is trained"),
        ("batch", 64, "vectors in a batch, a multiple of 8"),
        ("repetitions", 15, "timed steps of each; 0 for none"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, metavar="N", help=f"{what}; {default} by default")
    args = parser.parse_args(argv)
    jax.config.update("jax_num_cpu_devices", 8)
    tables = []
    for method in [name for name in TIMED if name in args.recipes and args.repetitions]:
        columns = ["setting", "ratio", "collectives", "bytes", "state", "programs", "apart"]
        table = report.Table(f"Training with {method}, {min(jax.device_count(), 8)} devices", columns)
        for row in measure(method, args.layers, args.batch, args.repetitions):
            table.add(*row)
        tables.append(table)
    for layout in UPDATES if jax.device_count() >= 8 else ():
        columns = [label for title in ("collectives", "bytes", "state") for label in (title, "Optax")]
        table = report.Table(f"Updates, {layout}", ["recipe", *columns])
        for recipe in args.recipes:
            pairs = [facts(library, recipe, layout) for library in LIBRARIES]
            table.add(recipe, *(cell for pair in zip(*pairs, strict=True) for cell in pair))
        tables.append(table)
    if args.write:
        command = " ".join(["python -m benchmarks.sharded", *argv])
        explanation = EXPLANATION.format(**vars(args))
        report.write_section(args.write, HEADING, report.section(command, explanation, tables))


if __name__ == "__main__":
    main()

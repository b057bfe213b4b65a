"""What XLA makes of each method's step for an accelerator that is not there, beside Optax: kernels, memory traffic, and
what eight of them say to each other.

The compilers come in the wheels that drive the accelerators, and need neither accelerator nor driver:
pip install --editable ".[accelerators]", best into a virtual environment of its own (make bench-accelerators).

Usage: python -m benchmarks.compiled_for [--devices h200] [--recipes adamw,lion] [--trees gpt2-12] [--write [FILE]]
"""

import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

import gradtx
from benchmarks import report, trees
from benchmarks.collectives import bytes_of
from benchmarks.on_mesh import UPDATES, attempt, cells, update_of
from benchmarks.recipes import LIBRARIES, build, step_of
from gradtx import storage

HEADING = "Compiled for accelerators"

DEFAULT_TREES = ("gpt2-12", "small")

DESCRIPTION = (
    "Kernels, memory traffic and collectives of each method's step, compiled for accelerators that are not there."
)

SPREAD = ("adamw", "clip+adamw", "lamb", "adafactor", "contrib.muon")  # compiled for eight devices too

EXPLANATION = """\
The step of the first section, compiled ahead of time on a machine with a CPU alone; nothing is run.

*Kernels* are the instructions of the compiled program's entry computation that launch work: on the GPU everything but
parameters, constants and tuples, nearly all of it fusions; on the TPU the fusions, for what stands beside them there
are scalars, which have a core of their own, and prefetches. *Bytes* are those of the kernels' operands and results, and
*temp* is the size of the temporary buffers, both per float32 parameter. The least is 12 bytes and 8 more per slot of
state. XLA's own count of bytes accessed is not used: it knows none for a GPU, and on the TPU it counts a prefetch as
two accesses more. In each pair of columns gradtx comes first, then Optax.

*Stored state*: methods in `gradtx.compress_state`, with parameters and gradients in float32 and in bfloat16: first
`update` and `apply_updates`, two calls; then `gradtx.step`, which on a GPU has one kernel for each leaf.

*Collectives* are those of the update of 24 leaves (42 MB) on eight devices, as in "Several devices": AR all-reduce,
AG all-gather, RS reduce-scatter, A2A all-to-all, CP collective-permute, and the bytes of their results on one device.
In a TPU's program one that runs beside other work is several fusions, of which the one that starts it is counted.
What a loop repeats counts once: there both are lower bounds. XLA on the TPU rounds the operands of matrix products to
bfloat16 before it gathers them."""

INSTALL = 'pip install --editable ".[accelerators]" in an environment of its own, as make bench-accelerators does'

# An instruction's name, shape, opcode and operands.
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z-]+)\((.*?)\)", re.MULTILINE)
AUTOTUNE_NOTHING: dict[str, str | bool] = {"xla_gpu_autotune_level": "0"}  # autotuning runs kernels
NO_WORK = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def is_launch(opcode: str) -> bool:
    """Whether a GPU has something to do there."""
    return opcode not in NO_WORK and not opcode.endswith("-done")


def is_fusion(opcode: str) -> bool:
    return opcode == "fusion"


def kernels(hlo: str, is_kernel: Callable[[str], bool] = is_launch) -> tuple[int, int]:
    """How many kernels the entry computation has, and the bytes of their operands and results."""
    entry, _, _ = hlo.partition("\nENTRY")[2].partition("\n}")
    sizes: dict[str, int] = {}
    count = total = 0
    for name, shape, opcode, operands in INSTRUCTION.findall(entry):
        sizes[name] = bytes_of(shape)
        if is_kernel(opcode):
            count += 1
            total += sizes[name] + sum(sizes[operand] for operand in re.findall(r"%([^\s,]+)", operands))
    return count, total


class Accelerator(NamedTuple):
    """A device to compile for."""

    name: str
    wheels: tuple[str, ...]  # that hold its compiler; the first has a module of the same name
    topology: Callable[[int], topologies.TopologyDescription]  # of 1 device or more, or of 8
    is_kernel: Callable[[str], bool]
    options: dict[str, str | bool]  # of the compiler

    @property
    def installed(self) -> bool:
        return find_spec(self.wheels[0].replace("-", "_")) is not None


def h200(devices: int = 1) -> topologies.TopologyDescription:
    target = Path(__file__).with_name("h200.txtpb").read_text(encoding="utf-8")
    return topologies.get_topology_desc("h200", "cuda", topology=f"1x1x{devices}", target_config=target)


def tpu_v5e(devices: int = 1) -> topologies.TopologyDescription:
    # Otherwise libtpu asks the metadata server of the machine, which only a TPU's host has.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    return topologies.get_topology_desc("v5e:2x4" if devices > 4 else "v5e:2x2", "tpu")


ACCELERATORS = {
    "h200": Accelerator("NVIDIA H200", ("jax-cuda12-plugin", "jax-cuda12-pjrt"), h200, is_launch, AUTOTUNE_NOTHING),
    "tpu-v5e": Accelerator("TPU v5e", ("libtpu",), tpu_v5e, is_fusion, {}),
}


def measure(accelerator: Accelerator, library: ModuleType, recipe: str, params: Any) -> list[str]:
    """The cells of one library: kernels, bytes and temporary bytes per parameter."""
    tx = build(recipe, library)
    return cost(accelerator, tx, step_of(library, tx), params)


def cost(accelerator: Accelerator, tx: Any, step: Callable, params: Any) -> list[str]:
    """Kernels, bytes and temporary bytes per parameter of a step (params, state, grads) -> (params, state)."""
    sharding = SingleDeviceSharding(accelerator.topology(1).devices[0])

    def on_device(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step, donate_argnums=(0, 1))
    compiled = step.lower(on_device(params), on_device(state), on_device(params)).compile(accelerator.options)
    count, accessed = kernels(compiled.as_text() or "", accelerator.is_kernel)
    memory: Any = compiled.memory_analysis()
    return [str(count), *(f"{x / trees.size(params):.2f}" for x in (accessed, memory.temp_size_in_bytes))]


STORED = {
    "adamw": lambda: gradtx.adamw(1e-3),
    "adamw, int8": lambda: gradtx.compress_state(gradtx.adamw(1e-3)),
    "adamw, float8": lambda: gradtx.compress_state(gradtx.adamw(1e-3), storage.float8(), storage.float8("squares")),
    "clip+adamw, int8": lambda: gradtx.compress_state(
        gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(1e-3))
    ),
    "lion, int8": lambda: gradtx.compress_state(gradtx.lion(1e-3)),
    "lamb, int8": lambda: gradtx.compress_state(gradtx.lamb(1e-3)),
}


def stored_table(accelerator: Accelerator) -> report.Table:
    """Steps of methods whose state is stored in blocks: as two calls, and as `gradtx.step`."""
    columns = [f"{dtype}: {what}" for dtype in ("float32", "bfloat16") for what in ("bytes", "temp", "step", "temp")]
    table = report.Table(f"Stored state, 8 leaves of 1024 x 2048: {accelerator.name}", ["recipe", *columns])
    for name, make in STORED.items():
        tx, found = make(), []
        calls = lambda p, s, g, tx=tx: (lambda u, s: (gradtx.apply_updates(p, u), s))(*tx.update(g, s, p))
        for dtype in ("float32", "bfloat16"):
            params = {f"w{i}": jax.ShapeDtypeStruct((1024, 2048), dtype) for i in range(8)}
            for step in (calls, partial(gradtx.step, tx)):
                found += cost(accelerator, tx, step, params)[1:]
        table.add(name, *found)
    return table


def collectives_table(accelerator: Accelerator, recipes: Sequence[str]) -> report.Table:
    """What eight devices say to each other in the updates of both libraries."""
    columns = [label for layout in UPDATES for label in (layout, "bytes", "Optax", "bytes")]
    table = report.Table(f"Collectives of eight: {accelerator.name}", ["recipe", *columns])
    devices = accelerator.topology(8).devices
    rows = {recipe: {library: build(recipe, library) for library in LIBRARIES} for recipe in recipes}
    if "contrib.muon" in rows:
        rows["muon in bfloat16"] = {gradtx: gradtx.muon(1e-3, ns_dtype="bfloat16")}
    for name, txs in rows.items():
        found: list[str] = []
        for layout, library in itertools.product(UPDATES, LIBRARIES):
            make = partial(update_of, library, txs.get(library), layout, devices, accelerator.options)
            found += cells(attempt(make))[:2] if library in txs else ["-", "-"]
        table.add(name, *found)
    return table


def main(argv: Sequence[str] | None = None) -> None:
    """Prints a table per accelerator and tree, and writes them into RESULTS.md if asked to."""
    argv = sys.argv[1:] if argv is None else argv
    parser = report.argument_parser("benchmarks.compiled_for", DESCRIPTION, DEFAULT_TREES)
    parser.add_argument(
        "--devices",
        type=report.list_of(_device),
        default=list(ACCELERATORS),
        metavar="NAME,...",
        help=f"of {', '.join(ACCELERATORS)}; all by default",
    )
    args = parser.parse_args(argv)
    chosen = [ACCELERATORS[name] for name in args.devices]
    for accelerator in chosen:
        if not accelerator.installed:
            print(f"{accelerator.name} is left out, without {' and '.join(accelerator.wheels)}: {INSTALL}.")
    chosen = [accelerator for accelerator in chosen if accelerator.installed]
    if not chosen:
        return
    jax.config.update("jax_platforms", "cpu")  # or jax starts the accelerators, which are not there
    tables = []
    for accelerator in chosen:
        for name in args.trees:
            columns = [label for title in ("kernels", "bytes", "temp") for label in (title, "Optax")]
            table = report.Table(f"{accelerator.name}, {trees.describe(name)}", ["recipe", *columns])
            for recipe in args.recipes:
                cells = [measure(accelerator, library, recipe, trees.build(name)) for library in LIBRARIES]
                table.add(recipe, *(cell for pair in zip(*cells, strict=True) for cell in pair))
            tables.append(table)
        tables.append(stored_table(accelerator))
        if spread := [recipe for recipe in SPREAD if recipe in args.recipes]:
            tables.append(collectives_table(accelerator, spread))
    if args.write:
        command = " ".join(["python -m benchmarks.compiled_for", *argv])
        wheels = [wheel for accelerator in chosen for wheel in accelerator.wheels]
        report.write_section(args.write, HEADING, report.section(command, EXPLANATION, tables, wheels))


def _device(name: str) -> str:
    if name not in ACCELERATORS:
        raise ValueError(f"no device {name!r}: choose from {', '.join(ACCELERATORS)}")
    return name


if __name__ == "__main__":
    main()

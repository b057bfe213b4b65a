"""What XLA makes of each method's step for an accelerator that is not there, beside Optax: kernels and memory traffic.

The compilers come in the wheels that drive the accelerators, and need neither accelerator nor driver:
pip install --editable ".[accelerators]", best into a virtual environment of its own (make bench-accelerators).

Usage: python -m benchmarks.compiled_for [--devices h200] [--recipes adamw,lion] [--trees gpt2-12] [--write [FILE]]
"""

import math
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks import report, trees
from benchmarks.recipes import LIBRARIES, build, step_of

HEADING = "Compiled for accelerators"

DEFAULT_TREES = ("gpt2-12", "small")

DESCRIPTION = "Kernels and memory traffic of each method's step, compiled for an accelerator that is not there."

EXPLANATION = """\
The step of the first section, compiled ahead of time on a machine with a CPU alone; nothing is run.

*Kernels* are the instructions of the compiled program's entry computation that launch work: on the GPU everything but
parameters, constants and tuples, nearly all of it fusions; on the TPU the fusions, for what stands beside them there
are scalars, which have a core of their own, and prefetches. *Bytes* are those of the kernels' operands and results, and
*temp* is the size of the temporary buffers, both per float32 parameter. The least is 12 bytes and 8 more per slot of
state. XLA's own count of bytes accessed is not used: it knows none for a GPU, and on the TPU it counts a prefetch as
two accesses more. In each pair of columns gradtx comes first, then Optax."""

INSTALL = 'pip install --editable ".[accelerators]" in an environment of its own, as make bench-accelerators does'

# An instruction's name, shape, opcode and operands; an array's kind, bits and dimensions.
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%(\S+) = (.*?) ([a-z-]+)\((.*?)\)", re.MULTILINE)
ARRAY = re.compile(r"([a-z]+)(\d*)[a-z0-9]*\[([\d,]*)\]")
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


def bytes_of(shape: str) -> int:
    arrays = ((8 if kind == "pred" else int(bits or 0), dimensions) for kind, bits, dimensions in ARRAY.findall(shape))
    return sum(bits * math.prod(int(n) for n in dimensions.split(",") if n) // 8 for bits, dimensions in arrays)


class Accelerator(NamedTuple):
    """A device to compile for."""

    name: str
    wheels: tuple[str, ...]  # that hold its compiler; the first has a module of the same name
    topology: Callable[[], topologies.TopologyDescription]
    is_kernel: Callable[[str], bool]
    options: dict[str, str | bool]  # of the compiler

    @property
    def installed(self) -> bool:
        return find_spec(self.wheels[0].replace("-", "_")) is not None


def h200() -> topologies.TopologyDescription:
    target = Path(__file__).with_name("h200.txtpb").read_text(encoding="utf-8")
    return topologies.get_topology_desc("h200", "cuda", topology="1x1x1", target_config=target)


def tpu_v5e() -> topologies.TopologyDescription:
    # Otherwise libtpu asks the metadata server of the machine, which only a TPU's host has.
    os.environ |= {
        "TPU_SKIP_MDS_QUERY": "1",
        "TPU_ACCELERATOR_TYPE": "v5litepod-8",
        "TPU_WORKER_HOSTNAMES": "localhost",
    }
    return topologies.get_topology_desc("v5e:2x2", "tpu")


ACCELERATORS = {
    "h200": Accelerator("NVIDIA H200", ("jax-cuda12-plugin", "jax-cuda12-pjrt"), h200, is_launch, AUTOTUNE_NOTHING),
    "tpu-v5e": Accelerator("TPU v5e", ("libtpu",), tpu_v5e, is_fusion, {}),
}


def measure(accelerator: Accelerator, library: ModuleType, recipe: str, params: Any) -> list[str]:
    """The cells of one library: kernels, bytes and temporary bytes per parameter."""
    sharding = SingleDeviceSharding(accelerator.topology().devices[0])

    def on_device(tree):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

    tx = build(recipe, library)
    state = jax.eval_shape(tx.init, params)
    step = jax.jit(step_of(library, tx), donate_argnums=(0, 1))
    compiled = step.lower(on_device(params), on_device(state), on_device(params)).compile(accelerator.options)
    count, accessed = kernels(compiled.as_text() or "", accelerator.is_kernel)
    memory: Any = compiled.memory_analysis()
    return [str(count), *(f"{x / trees.size(params):.2f}" for x in (accessed, memory.temp_size_in_bytes))]


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

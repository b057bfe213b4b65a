"""The command line's options."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from examples.arguments import whole
from examples.train_lm_sharded.model import Sizes

AXES: tuple[str, ...] = ("data", "fsdp", "tensor")


class OptionError(ValueError):
    """What the options ask for cannot be done."""


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, consistent; ends the program with code 2 and a message if they are not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.processes == 1:
        options.coordinator = None
    if options.coordinator and None in (options.processes, options.process):
        parser.error(
            "--coordinator needs --processes, how many there are, and --process, which of them this is, from 0"
        )
    if options.coordinator is None and (options.processes or 1) > 1:
        parser.error("--processes needs --coordinator, the HOST:PORT where process 0 listens")
    if options.coordinator and not 0 <= options.process < options.processes:
        parser.error(f"--process must be one of 0 to {options.processes - 1}, got {options.process}")
    if options.width % options.heads:
        parser.error(f"--heads must divide --width ({options.width}), got {options.heads}")
    if options.save_every and options.checkpoint is None:
        parser.error("--save-every needs --checkpoint, the folder that is saved to")
    options.save_every = options.save_every or 100
    options.warmup = options.steps // 10 if options.warmup is None else options.warmup
    if options.warmup >= options.steps:
        parser.error(f"--warmup must be less than --steps ({options.steps}), got {options.warmup}")
    return options


def sizes(options: argparse.Namespace) -> Sizes:
    """How large a network the options ask for."""
    return Sizes(options.layers, options.width, options.heads, options.context)


def read_mesh(text: str) -> dict[str, int]:
    """`data=2,fsdp=-1` as sizes of all axes: those that are not named have 1, and one may be -1, what is left over.

    Raises:
      argparse.ArgumentTypeError: it does not read so.
    """
    found: dict[str, int] = dict.fromkeys(AXES, 1)
    seen: set[str] = set()
    for part in text.split(","):
        name, _, size = (piece.strip() for piece in part.partition("="))
        if name not in AXES:
            raise argparse.ArgumentTypeError(f"there is no axis {name!r}: the axes are {', '.join(AXES)}, in {text!r}")
        if name in seen:
            raise argparse.ArgumentTypeError(f"{name} is there twice in {text!r}")
        if size != "-1" and (not size.isdecimal() or int(size) < 1):
            raise argparse.ArgumentTypeError(
                f"{name} must be a whole number, 1 or more, or -1, got {size!r} in {text!r}"
            )
        seen.add(name)
        found[name] = int(size)
    if list(found.values()).count(-1) > 1:
        raise argparse.ArgumentTypeError(f"one axis may be -1, got {text!r}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.train_lm_sharded",
        description="Trains a GPT on the bytes of a text, on all devices of all processes. Run again with the same "
        "--checkpoint, on any mesh, it goes on from the last step that was saved.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30, width=110),
    )

    group = parser.add_argument_group("network and text")
    group.add_argument("--layers", type=whole(1), default=4, metavar="N", help="default: %(default)s")
    group.add_argument("--width", type=whole(1), default=128, metavar="N", help="default: %(default)s")
    group.add_argument("--heads", type=whole(1), default=4, metavar="N", help="default: %(default)s")
    group.add_argument("--context", type=whole(1), default=128, metavar="N", help="bytes seen at once (%(default)s)")
    group.add_argument("--text", type=Path, metavar="PATH", help="default: Python's own manual, which comes with it")

    group = parser.add_argument_group("training")
    group.add_argument("--optimizer", default="adamw", metavar="NAME", help="any of gradtx's (default: %(default)s)")
    group.add_argument("--learning-rate", type=_positive, default=1e-3, metavar="X", help="its peak (%(default)s)")
    group.add_argument("--warmup", type=whole(0), metavar="N", help="steps until the peak (default: a tenth)")
    group.add_argument("--steps", type=whole(1), default=200, metavar="N", help="in all (default: %(default)s)")
    group.add_argument("--batch", type=whole(1), default=16, metavar="N", help="of all devices (default: %(default)s)")
    group.add_argument("--clip", type=_positive, metavar="X", help="the gradients' largest norm (default: unlimited)")
    group.add_argument(
        "--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation (%(default)s)"
    )
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="default: %(default)s")

    group = parser.add_argument_group("devices")
    group.add_argument(
        "--mesh",
        type=read_mesh,
        default=read_mesh("fsdp=-1"),
        metavar="AXES",
        help="such as data=2,fsdp=2,tensor=2: data repeats parameters, fsdp divides them and the batch, tensor divides "
        "each matrix product; -1 is what is left over (default: fsdp=-1)",
    )
    group.add_argument("--zero", action="store_true", help="divide the optimizer's state over data too (ZeRO-1)")

    group = parser.add_argument_group(
        "processes", "Found without options under Slurm, Open MPI 4 and on TPU pods; elsewhere:"
    )
    environment = os.environ.get  # the last two are what Kubernetes' launchers set
    group.add_argument(
        "--coordinator",
        default=environment("JAX_COORDINATOR_ADDRESS"),
        metavar="HOST:PORT",
        help="where process 0 listens (or JAX_COORDINATOR_ADDRESS)",
    )
    for flag, variable, least, what in (
        ("--processes", "JAX_NUM_PROCESSES", 1, "how many there are"),
        ("--process", "JAX_PROCESS_ID", 0, "which this is, from 0"),
    ):
        group.add_argument(
            flag, type=whole(least), default=environment(variable), metavar="N", help=f"{what} (or {variable})"
        )
    group.add_argument(
        "--heartbeat", type=whole(1), default=100, metavar="S", help="seconds until a silent process is given up (100)"
    )

    group = parser.add_argument_group("what is kept")
    group.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="saved to, and gone on from; seen by every process"
    )
    group.add_argument("--save-every", type=whole(1), metavar="N", help="steps between checkpoints (default: 100)")
    group.add_argument("--report", type=Path, metavar="FILE", help="losses, collectives, bytes and speed, as JSON")
    group.add_argument("--log-every", type=whole(1), default=10, metavar="N", help="steps per line (%(default)s)")
    return parser


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value

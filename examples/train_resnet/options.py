"""The command line's options."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from examples.arguments import whole
from examples.train_resnet.optimizers import OPTIMIZERS, SCHEDULES

# What suits a dataset, unless the command line says otherwise.
DEFAULTS = {
    "digits": {"epochs": 20, "warmup_epochs": 2.0, "batch_size": 32},
    "cifar10": {"epochs": 30, "warmup_epochs": 2.0, "batch_size": 128},
}
QUICK = {"epochs": 1, "warmup_epochs": 0.5, "batch_size": 32}
QUICK_STEPS = 4


def read_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options, complete and consistent; ends the program with code 2 and a message if they are not."""
    parser = _parser()
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else DEFAULTS[options.data]).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    for name in ("optimizers", "schedules", "rates"):
        setattr(options, name, list(dict.fromkeys(getattr(options, name))))
    if options.data == "cifar10" and options.data_dir is None:
        parser.error("--data cifar10 needs --data-dir, the folder that holds cifar-10-batches-bin")
    if options.data != "cifar10" and options.data_dir is not None:
        parser.error("--data-dir is for --data cifar10")
    if options.warmup_epochs >= options.epochs:
        parser.error(f"--warmup-epochs must be less than --epochs ({options.epochs}), got {options.warmup_epochs:g}")
    return options


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m examples.train_resnet",
        description="Trains ResNet-20 with each optimizer, schedule and learning rate, and shows which does best.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=32, width=110),
    )

    def default(name: str) -> str:
        return f"(default: {DEFAULTS['digits'][name]:g} on digits, {DEFAULTS['cifar10'][name]:g} on CIFAR-10)"

    group = parser.add_argument_group("data")
    group.add_argument("--data", choices=DEFAULTS, default="digits", help="handwritten digits, built in, or CIFAR-10")
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="holds CIFAR-10's binary files or their folder")
    group.add_argument("--subset", type=whole(100), metavar="N", help="only the first N pictures, for a quick try")

    group = parser.add_argument_group("what is compared")
    group.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS), help="default: all")
    group.add_argument(
        "--schedules", nargs="+", choices=SCHEDULES, default=["warmup_cosine"], help="default: warmup_cosine"
    )
    group.add_argument(
        "--rates",
        nargs="+",
        type=_positive,
        default=[0.001, 0.01, 0.1],
        metavar="RATE",
        help="learning rates, the peaks of their schedules (default: 0.001 0.01 0.1)",
    )

    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=whole(1), metavar="N", help=default("epochs"))
    group.add_argument("--warmup-epochs", type=_not_negative, metavar="X", help=default("warmup_epochs"))
    group.add_argument(
        "--batch-size", type=whole(1), metavar="N", help=f"{default('batch_size')}; on a CPU, 64 is faster than 128"
    )
    group.add_argument(
        "--weight-decay", type=_not_negative, default=0.05, metavar="X", help="AdamW's decay (default: %(default)s)"
    )
    group.add_argument(
        "--l2", type=_not_negative, default=5e-4, metavar="X", help="SGD's L2 regularization (default: %(default)s)"
    )
    group.add_argument(
        "--mixup",
        type=_not_negative,
        default=0.0,
        metavar="ALPHA",
        help="mix pairs of pictures, in shares from Beta(ALPHA, ALPHA) (default: off)",
    )
    group.add_argument("--seed", type=whole(0), default=0, metavar="N", help="default: 0")

    parser.add_argument("--out", type=Path, metavar="DIR", help="the report's folder (default: runs/<time>)")
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STEPS} small steps a run: does everything work?")
    return parser


def _positive(text: str) -> float:
    value = _not_negative(text)
    if value == 0:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return value


def _not_negative(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a finite number, 0 or more, got {text!r}")
    return value

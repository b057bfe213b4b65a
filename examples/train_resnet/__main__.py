"""The program: `python -m examples.train_resnet --help`."""

import argparse
import dataclasses
import itertools
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from examples.train_resnet.augment import Augmentation
from examples.train_resnet.data import DataError, Dataset, cifar10, digits
from examples.train_resnet.optimizers import OPTIMIZERS, Regularization, Trial
from examples.train_resnet.options import QUICK_STEPS, read_options
from examples.train_resnet.report import best_of, counted, device, print_table, results, write
from examples.train_resnet.train import Epoch, Run, Settings, Trainer

INTERRUPTED = 130  # the exit code of programs that Ctrl-C ended
SLOW = 30  # seconds; epochs that take longer are worth a line each in a log file


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit code."""
    options = read_options(arguments)
    started = datetime.now().astimezone().replace(microsecond=0)
    folder = options.out or Path("runs") / started.strftime("%Y-%m-%d-%H%M%S")
    try:
        data = load(options)
        folder.mkdir(parents=True, exist_ok=True)
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return compare(data, options, folder, started)


def load(options: argparse.Namespace) -> Dataset:
    """The dataset that the options ask for."""
    if options.data == "cifar10":
        data = cifar10(options.data_dir, options.subset)
    else:
        data = digits()
        data = dataclasses.replace(data, train=data.train[: options.subset])
    if options.quick:
        data = dataclasses.replace(data, train=data.train[: QUICK_STEPS * options.batch_size])
    if options.batch_size > len(data.train):
        raise DataError(f"a batch of {options.batch_size} is more than the {len(data.train)} training pictures")
    return data


def settings(options: argparse.Namespace) -> Settings:
    """What the runs have in common, as the options ask for it."""
    # A mirrored horse is a horse, but a mirrored 2 is no digit: digits are only shifted.
    padding, flip = (4, True) if options.data == "cifar10" else (1, False)
    return Settings(
        epochs=options.epochs,
        warmup_epochs=options.warmup_epochs,
        batch_size=options.batch_size,
        augmentation=Augmentation(padding, flip, options.mixup),
        regularization=Regularization(options.l2, options.weight_decay),
        seed=options.seed,
    )


def compare(data: Dataset, options: argparse.Namespace, folder: Path, started: datetime) -> int:
    """Trains with every optimizer, schedule and rate; reports on the terminal and in the folder.

    Returns the exit code: 0, or 130 if it was interrupted, in which case the report is about the runs that finished.
    """
    console, clock = Console(), time.perf_counter()
    trials = [Trial(*choice) for choice in itertools.product(options.optimizers, options.schedules, options.rates)]
    with console.status("initializing the network"):
        trainer = Trainer(data, settings(options))
    console.print(
        f"[bold]ResNet-20[/], {trainer.parameters:,} weights, on {data.name}: {len(data.train):,} pictures to train "
        f"on, {len(data.validation):,} to choose by, {len(data.test):,} to test on. {device()}.",
        f"{counted(len(trials), 'run')} of {counted(options.epochs, 'epoch')} of "
        f"{counted(trainer.steps_per_epoch, 'step')} of {counted(options.batch_size, 'picture')}; "
        "validation accuracy at the end:",
        sep="\n",
        highlight=False,
    )
    runs: list[Run] = []
    try:
        train_all(trainer, trials, console, runs)
    except KeyboardInterrupt:
        console.print(f"interrupted after {counted(len(runs), 'run')} of {len(trials)}")
    if not runs:
        return INTERRUPTED
    seconds = time.perf_counter() - clock
    arguments = {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}
    found = results(trainer, runs, arguments, started.isoformat(sep=" "), seconds)
    write(folder, trainer, runs, found)
    print_table(console, runs, best_of(runs))
    console.print(found["answer"], style="bold", highlight=False)
    console.print(
        f"{seconds:.0f} seconds; {counted(trainer.traced.count, 'compilation')} of the training step: for each "
        "optimizer and schedule, not for each learning rate.",
        highlight=False,
    )
    # soft_wrap: a path in one piece can be clicked and copied; markup off: it may hold brackets.
    console.print(f"Curves, table and numbers: {folder / 'index.html'}", highlight=False, markup=False, soft_wrap=True)
    return 0 if len(runs) == len(trials) else INTERRUPTED


def train_all(trainer: Trainer, trials: Sequence[Trial], console: Console, runs: list[Run]) -> None:
    """Trains each trial and adds it to `runs`; shows a bar for the run, one for all, and a line for each run done."""
    steps = trainer.settings.epochs * trainer.steps_per_epoch
    several = len({trial.schedule for trial in trials}) > 1
    names = [f"{OPTIMIZERS[t.optimizer]}{f', {t.schedule}' * several}, rate {t.rate:g}" for t in trials]
    width = max(map(len, names))
    columns = BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    with Progress(TextColumn("{task.description}"), *columns, console=console, transient=True) as progress:
        everything = progress.add_task(f"all {len(trials)} runs", total=steps * len(trials))
        current = progress.add_task("", total=steps)

        def on_step() -> None:
            progress.advance(current)
            progress.advance(everything)

        for number, (trial, name) in enumerate(zip(trials, names, strict=True), start=1):
            progress.reset(current, description=name)

            def on_epoch(epoch: Epoch, name: str = name) -> None:
                progress.update(current, description=f"{name}: {epoch.validation_accuracy:.2%}")
                if not console.is_terminal and epoch.seconds > SLOW:  # a log file has no bar
                    line = f"         epoch {epoch.epoch}: {epoch.validation_accuracy:.2%}, {epoch.seconds:.0f} seconds"
                    console.print(line, highlight=False)

            runs.append(run := trainer.train(trial, on_step, on_epoch))
            progress.update(everything, completed=number * steps)  # a run that diverged has skipped some
            score = f"diverged in epoch {run.diverged_in}" if run.diverged_in else f"{run.score[0]:.2%}"
            star = "  ★ best so far" if best_of(runs) is run else ""
            console.print(f"{number:3}/{len(trials)}  {name:{width}}  {score}{star}", highlight=False)


if __name__ == "__main__":
    sys.exit(main())

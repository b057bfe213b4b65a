"""The command line: python -m benchmarks.quality tune|run|shorten|report. See the package."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import jax

from benchmarks import quality
from benchmarks.quality import report, tasks, tune
from benchmarks.quality.recipes import BASELINE, RECIPES
from benchmarks.quality.records import Records
from benchmarks.quality.run import REPETITIONS, SEEDS, run
from benchmarks.quality.shorten import SHORTENED, shortest
from benchmarks.report import environment, list_of
from examples.textbook import picture
from examples.train_lm_sharded.options import OptionError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "quality.md"
QUICK_RECIPES = [BASELINE, "optax adamw", "muon"]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where something that was asked for cannot be done."""
    argv = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(argv)
    names = options.recipes or (QUICK_RECIPES if options.quick else list(RECIPES))
    names = [BASELINE, *(name for name in names if name != BASELINE)]
    build, rounds, seeds = (tasks.quick, tune.QUICK, SEEDS[:2]) if options.quick else (tasks.full, tune.ROUNDS, SEEDS)
    if options.quick:  # most of the time goes into compiling
        jax.config.update("jax_disable_most_optimizations", True)
    try:
        chosen = {name: build(name, options.text) for name in options.tasks}
        records = Records(options.records)
    except (OptionError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    for task in chosen.values():
        tune.check_steps(task, rounds)
    if options.command == "report":
        return _report(options, argv, chosen, names, rounds, records, seeds)
    clock = tune.Clock(options.minutes)
    part, parts = options.share
    try:
        for task in chosen.values():
            for name in names[part - 1 :: parts]:
                if options.command == "tune":
                    found = tune.tune(task, name, rounds, records, clock)
                    print(f"{task.name}  {name}: {found}", flush=True)
                elif options.command == "shorten":
                    found = shortest(task, name, rounds, records, clock, seeds[:SHORTENED])
                    print(f"{task.name}  {name}: {found:.3f} of {BASELINE}'s steps", flush=True)
                else:
                    run(task, name, rounds, records, clock, seeds, 1 if options.quick else REPETITIONS)
    except tune.OutOfTimeError:
        print(f"{options.minutes:g} minutes are over. The same command goes on from here.")
    return 0


def _report(options, argv, chosen, names, rounds, records, seeds) -> int:
    found, missing = {}, []
    for title, task in chosen.items():
        each = {name: run(task, name, rounds, records, seeds=seeds) for name in names}
        missing += [f"{title} {name}" for name, one in each.items() if one is None]
        if each[BASELINE] is not None:
            length = lambda name, task=task: shortest(task, name, rounds, records, seeds=seeds[:SHORTENED])
            found[title] = {n: one._replace(shortest=length(n)) for n, one in each.items() if one is not None}
    if missing:
        print(f"Not run to the end, and left out: {', '.join(missing)}.", file=sys.stderr)
    if not found:
        print(f"There is no result of {BASELINE}: `tune` and `run` come first.", file=sys.stderr)
        return 2
    told = report.report(chosen, found)
    command = " ".join(["python -m benchmarks.quality", *map(_shown, argv)])
    how = report.method(rounds, len(seeds)) + (f" Not run to the end: {', '.join(missing)}." if missing else "")
    text = report.page(chosen, told, command, environment(["flax"]), how)
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
        image = picture.save(next(iter(told.values())).figures["quality"], options.write.with_name("quality.png"))
        print(f"Wrote {options.write} and {image}.")
    return 0


def _shown(argument: str) -> str:
    """A path without its folder, which is another one elsewhere."""
    return Path(argument).name if "/" in argument else argument


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality",
        description=quality.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("command", choices=("tune", "run", "shorten", "report"))
    add("--tasks", type=list_of(_task), default=list(tasks.TASKS), metavar="NAME,...", help=", ".join(tasks.TASKS))
    add("--recipes", type=list_of(_recipe), metavar="NAME,...", help=f"of {', '.join(RECIPES)}; all by default")
    add("--text", type=Path, metavar="PATH", help="what the GPT reads; default: Python's manual, which comes with it")
    add("--minutes", type=_minutes, metavar="N", help="no run begins later than that; default: until all is done")
    add(
        "--share",
        type=_share,
        default=(1, 1),
        metavar="I/N",
        help="every N-th recipe from the I-th on; for N processes",
    )
    add("--records", type=Path, default=ROOT / "runs" / "quality.jsonl", metavar="FILE", help="runs/quality.jsonl")
    add("--quick", action="store_true", help="small: it shows that the program runs, not what is true")
    add("--write", nargs="?", type=Path, const=PAGE, metavar="FILE", help="report: docs/quality.md by default")
    return parser


def _task(name: str) -> str:
    if name not in tasks.TASKS:
        raise ValueError(f"no task {name!r}: choose from {', '.join(tasks.TASKS)}")
    return name


def _recipe(name: str) -> str:
    if name not in RECIPES:
        raise ValueError(f"no recipe {name!r}: choose from {', '.join(RECIPES)}")
    return name


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < float("inf"):
        raise argparse.ArgumentTypeError(f"expected minutes, 0 or more, got {text!r}")
    return found


def _share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"expected I/N with 1 <= I <= N, such as 1/2, got {text!r}")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())

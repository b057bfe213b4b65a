"""What is lost when AdamW's state and the weights are stored in fewer bytes: the same runs, to the same number of
steps.

The GPT of `benchmarks.quality`, with the numbers that were tuned for AdamW in float32 (from the records, or tuned
first). Weights in bfloat16 are computed with in float32: what differs is how they are stored.

Usage: python -m benchmarks.quality.storage [--text PATH] [--records FILE] [--minutes N] [--ways WAY ...] [--seeds N]
    [--quick] [--write [FILE]]
"""

import argparse
import dataclasses
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import gradtx
from benchmarks.quality import tasks, tune
from benchmarks.quality.recipes import BASELINE, RECIPES, Recipe
from benchmarks.quality.records import Records
from benchmarks.quality.tasks import Task
from benchmarks.quality.training import bytes_each
from benchmarks.report import environment
from examples.arguments import whole
from examples.textbook import picture, spread
from examples.textbook.study import Report, Table, markdown
from examples.train_lm_sharded.options import OptionError
from gradtx import storage

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "storage-quality.md"
SEEDS = 3
ALLOWED = 0.5  # per cent of the loss that storage may cost


class Way(NamedTuple):
    """A way to store AdamW's state and the weights."""

    wrap: Callable[[Any], Any]
    weights: str = "float32"  # the dtype of the weights


def compressed(*codecs: Any, **options: Any) -> Callable[[Any], Any]:
    return lambda tx: gradtx.compress_state(tx, *codecs, **options)


PLAIN = Way(lambda tx: tx)
WAYS: dict[str, Way] = {
    "state int8": Way(compressed()),
    "state float8": Way(compressed(storage.float8(), storage.float8("squares"))),
    "state bfloat16, by chance": Way(compressed(storage.bfloat16(), storage.bfloat16())),
    "state bfloat16, nearest": Way(compressed(storage.bfloat16("nearest"), storage.bfloat16("nearest"))),
    "weights bfloat16, nearest": Way(lambda tx: tx, "bfloat16"),
    "weights bfloat16, by chance": Way(lambda tx: gradtx.round_stochastically(tx, key=0), "bfloat16"),
    "weights bfloat16, split": Way(gradtx.split_weights, "bfloat16"),
    "weights bfloat16, float32 copy": Way(gradtx.master_weights, "bfloat16"),
    "state int8, weights split": Way(lambda tx: gradtx.split_weights(gradtx.compress_state(tx)), "bfloat16"),
}


def recipe(way: Way) -> Recipe:
    """AdamW, stored so."""
    plain = RECIPES[BASELINE]
    return plain._replace(build=lambda s: way.wrap(plain.build(s)))


def stored(task: Task, dtype: str) -> Task:
    """The task with its parameters in a dtype, and computed with in float32."""
    if dtype == "float32":
        return task
    wide = lambda params: jax.tree.map(lambda p: p.astype(jnp.float32), params)
    return dataclasses.replace(
        task,
        setting={**task.setting, "weights": dtype},
        begin=lambda seed: jax.tree.map(lambda p: p.astype(dtype), task.begin(seed)),
        loss=lambda params, data, key: task.loss(wide(params), data, key),
        measure=lambda params, held, key: task.measure(wide(params), held, key),
    )


def measured(
    task: Task,
    names: Sequence[str],
    rounds: Sequence[tune.Round],
    records: Records,
    clock: tune.Clock,
    seeds: Sequence[int],
) -> dict[str, np.ndarray]:
    """The test part's losses along the runs, `[seeds, LOOKS]`, of AdamW in float32 and of some ways."""
    tuned = tune.tune(task, BASELINE, rounds, records, clock)
    assert tuned is not None
    each = [(tuned.numbers, seed) for seed in seeds]
    ways = {BASELINE: PLAIN} | {name: WAYS[name] for name in names}
    run = lambda name, way: tune.losses(
        stored(task, way.weights), name, each, task.steps, "test", records, clock, recipe(way)
    )
    return {name: np.asarray(run(name, way)) for name, way in ways.items()}


def report(task: Task, found: dict[str, np.ndarray]) -> Report:
    """The table, the sentence that says which ways cost more than is allowed, and the picture."""
    plain = found[BASELINE][:, -1]
    rows, costs = [], {}
    for name, looks in found.items():
        way = WAYS.get(name, PLAIN)
        state, weights = bytes_each(stored(task, way.weights), recipe(way))
        costs[name] = spread.interval(100 * (looks[:, -1] / plain - 1))
        cost = "" if name == BASELINE else f"{costs[name][0]:+.2f} ± {costs[name][1]:.2f} %"
        rows.append([name, f"{weights:.0f}", f"{state:.2f}", f"{looks[:, -1].mean():.4f}", cost])
    columns = ["AdamW", "weights, bytes", "state, bytes", f"loss, {task.unit}", "more than in float32"]
    more = [name for name, (middle, _) in costs.items() if middle > ALLOWED]
    said = f"More than {ALLOWED} % above float32's loss: {', '.join(more) or 'none'}."
    title = f"mean of {len(plain)} seeds, paired; ± is half of a 95 % t-interval"
    return Report([Table(title, columns, rows)], {"storage-quality": drawn(found)}, [said])


def drawn(found: dict[str, np.ndarray]) -> Figure:
    """The cost of each way, by seed pairs."""
    plain = found[BASELINE][:, -1]
    names = [name for name in found if name != BASELINE][::-1]
    middle, half = np.array([spread.interval(100 * (found[name][:, -1] / plain - 1)) for name in names]).T
    figure, grid = picture.panels(1, 1, width=5.6, height=3.2)
    picture.differences(grid[0][0], names, middle, half)
    picture.label(grid[0][0], "", "loss above that of float32, per cent")
    return figure


def page(task: Task, told: Report, command: str) -> str:
    """All of the page, in markdown."""
    run = f"`{command}`  \n{environment(['flax'])}"
    about = textwrap.fill(task.about, 120) + "\n\n[storage.md](storage.md) says what each way is."
    return "\n\n".join(["# What storage costs", run, "![storage](storage-quality.png)", about, markdown(told)]) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0, or 2 where something that was asked for cannot be done."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.storage",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--text", type=Path, metavar="PATH", help="what the GPT reads; default: Python's manual")
    parser.add_argument("--minutes", type=float, metavar="N", help="no run begins later than that")
    parser.add_argument("--records", type=Path, default=ROOT / "runs" / "quality.jsonl", metavar="FILE")
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS), metavar="WAY", help="default: all")
    parser.add_argument("--seeds", type=whole(2), default=SEEDS, metavar="N", help="default: %(default)s")
    parser.add_argument("--quick", action="store_true", help="small: it shows that the program runs, not what is true")
    parser.add_argument("--write", nargs="?", type=Path, const=PAGE, metavar="FILE", help=PAGE.name)
    options = parser.parse_args(argv)
    seeds = range(1, 1 + options.seeds)
    build, rounds, seeds = (tasks.quick, tune.QUICK, seeds[:2]) if options.quick else (tasks.full, tune.ROUNDS, seeds)
    try:
        task, records = build("gpt", options.text), Records(options.records)
    except (OptionError, OSError) as error:
        print(f"{error}", file=sys.stderr)
        return 2
    try:
        found = measured(task, options.ways, rounds, records, tune.Clock(options.minutes), seeds)
    except tune.OutOfTimeError:
        print(f"{options.minutes:g} minutes are over. The same command goes on from here.")
        return 0
    told = report(task, found)
    shown = [Path(x).name if "/" in x else x for x in argv]
    text = page(task, told, " ".join(["python -m benchmarks.quality.storage", *shown]))
    print(text)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
        image = picture.save(told.figures["storage-quality"], options.write.with_suffix(".png"))
        print(f"Wrote {options.write} and {image}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

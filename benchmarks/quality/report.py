"""The page: tables, sentences made from the numbers, a picture."""

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.quality.recipes import BASELINE, RECIPES
from benchmarks.quality.run import Found
from benchmarks.quality.shorten import SHORTENED
from benchmarks.quality.tasks import Task
from benchmarks.quality.training import LOOKS, bytes_each
from benchmarks.quality.tune import Round
from examples.textbook import picture, spread
from examples.textbook.study import Report, Table, markdown
from gradtx import tuning

WIDTH = 120  # of a line of the page
EDGE = 0.05  # of a space's width: best numbers that lie nearer to an end might be better beyond it
SURE = 0.05  # of all stars of a table: the chance that one is there by chance

METHOD = """\
Each optimizer has the same four numbers to tune: its rate's peak, over two decades (a line up, then half a cosine to
0; of `composed` a line); how far weight decay alone would shrink a weight over the run; the decay b of its most
telling average; the share of the warmup. Of each there are {trials}, at the same places of every space. The best
numbers, by loss on a validation part, are run again from {seeds} other seeds, and measured on a test part. A seed is
one start, one order of batches and one choice of what is measured, so differences are paired; ± is half of a 95 %
t-interval of their mean. A star is a difference that is not by chance: all stars of a table together err with a
chance of at most 5 % (Holm). `composed` was put together by hand, from parts of which each made the loss on the
validation part lower. Methods of matrices have the hidden ones; embeddings, the head and vectors are AdamW's (of
`composed` NAdam's), with the same rate or a fixed multiple of it. *Steps*: until the loss is below the one with which
AdamW ends, as a share of AdamW's, in a run as long as AdamW's. *Shortest*: the shortest run, with the same numbers
and all of the schedule in it, that ends as low as AdamW's whole run (found by bisection with {shortened} seeds).
*Step*: processor time of a step of training, over that of AdamW beside it, in turns; *time*: steps of the shortest
run times step; *state*: bytes per parameter. Networks are small and so are batches: in larger ones a method's own
part of a step is smaller."""


AFTER = """\
A recipe of each name is a line in [benchmarks/quality/recipes.py](../benchmarks/quality/recipes.py). Methods of
matrices are on [matrices.md](matrices.md), what goes around a method on [modifiers.md](modifiers.md), what is
stored in fewer bytes on [storage.md](storage.md). All of it is measured on two small tasks: it says where to
begin, and what to expect of a name."""


def method(rounds: Sequence[Round], seeds: int) -> str:
    """How everything was found."""
    shown = ["all steps" if this.part == 1 else f"1/{this.part} of the steps" for this in rounds]
    trials = f"{rounds[0].members} trials of {shown[0]}"
    again = [
        f" and then the best {this.members} of them of {steps}"
        for this, steps in zip(rounds[1:], shown[1:], strict=True)
    ]
    return METHOD.format(trials=trials + "".join(again), seeds=seeds, shortened=min(seeds, SHORTENED))


def report(tasks: Mapping[str, Task], found: Mapping[str, Mapping[str, Found]]) -> dict[str, Report]:
    """What is told of each task; the picture is with the first."""
    told = {name: of_task(tasks[name], results) for name, results in found.items()}
    first = next(iter(told))
    figure = drawn({name: tasks[name] for name in found}, found)
    return told | {first: told[first]._replace(figures={"quality": figure})}


def page(tasks: Mapping[str, Task], told: Mapping[str, Report], command: str, where: str, how: str) -> str:
    """All of the page, in markdown: what to take, then what it is taken by."""
    taken = [
        textwrap.fill(f"- *{name}*: {one.findings[0]}", WIDTH, subsequent_indent="  ") for name, one in told.items()
    ]
    parts = ["# Which optimizer", "\n".join(taken), textwrap.fill(AFTER, WIDTH), "![quality](quality.png)"]
    parts += ["## How it was found", f"`{command}`  \n{where}", textwrap.fill(how, WIDTH)]
    for name, one in told.items():
        rest = markdown(one._replace(findings=one.findings[1:]))
        parts += [f"## {name}", textwrap.fill(tasks[name].about, WIDTH), rest]
    return "\n\n".join(parts) + "\n"


def of_task(task: Task, found: Mapping[str, Found]) -> Report:
    """The table of a task, best first, and what it says."""
    gaps = {name: difference(found, name) for name in found if name != BASELINE}
    sure = beyond_chance(gaps)
    rows, seeds = [], len(found[BASELINE].looks)
    for name in sorted(found, key=lambda name: finite(found[name].looks[:, -1].mean())):
        one, gap = found[name], gaps.get(name, np.zeros(seeds))
        shares, ratio, short = steps_share(found, name), one.times["ratio"], length(one)
        reached = np.isfinite(shares)
        steps = spread.mean(shares, ".2f") if reached.all() else f"{reached.sum()} of {seeds} runs"
        middle, half = spread.interval(gap)
        versus = "" if name == BASELINE else f"{middle:+.4f} ± {half:.4f}{' *' if name in sure else ''}"
        numbers = " ".join(f"{x:.2g}" for x in one.tuned.numbers)
        end = f"{one.looks[:, -1].mean():.4f}"
        counted = [f"{x:.2f}" if np.isfinite(x) else "" for x in (short, ratio, short * ratio)]
        state = f"{bytes_each(task, RECIPES[name])[0]:.1f}"
        rows.append([f"`{name}`", end, versus, steps, *counted, state, numbers, RECIPES[name].forgets])
    measured = ["loss", "less AdamW's", "steps", "shortest", "step", "time", "state"]
    columns = ["optimizer", *measured, "rate, shrink, 1 - b, warmup", "b"]
    title = f"{task.unit}, mean of {seeds} seeds"
    return Report([Table(title, columns, rows)], {}, [*chosen(task, found), *sentences(found, gaps, sure)])


def chosen(task: Task, found: Mapping[str, Found]) -> list[str]:
    """What to take, by the numbers alone."""
    end = lambda name: finite(found[name].looks[:, -1].mean())
    state = {name: bytes_each(task, RECIPES[name])[0] for name in found}
    time = {name: x for name, one in found.items() if np.isfinite(x := length(one) * one.times["ratio"])}
    said = f"Lowest loss: `{min(found, key=end)}`."
    if time:
        quickest = min(time, key=lambda name: time[name])
        said += f" Least time to AdamW's loss: `{quickest}`, {time[quickest]:.2f} of AdamW's."
    for share, words in ((1.0, "no more than AdamW's state"), (0.55, "at most half of AdamW's state")):
        if small := [name for name in found if state[name] <= share * state[BASELINE] + 0.05]:
            said += f" The lowest of those with {words}: `{min(small, key=end)}`."
    return [said]


def difference(found: Mapping[str, Found], name: str) -> np.ndarray:
    """The last loss less that of the baseline, seed by seed."""
    return found[name].looks[:, -1] - found[BASELINE].looks[:, -1]


def beyond_chance(gaps: Mapping[str, np.ndarray]) -> set[str]:
    """Names whose mean difference is not 0, by t-tests with Holm's correction for their number."""
    chances = {name: chance(gap) for name, gap in gaps.items()}
    sure: set[str] = set()
    for i, name in enumerate(sorted(chances, key=lambda name: chances[name])):
        if chances[name] > SURE / (len(chances) - i):
            break
        sure.add(name)
    return sure


def chance(gap: np.ndarray) -> float:
    """How probable so large a mean would be if the true one were 0; 1 where a run diverged or nothing differs."""
    if not np.isfinite(gap).all() or np.ptp(gap) == 0:
        return 1.0
    test: Any = stats.ttest_1samp(gap, 0.0)
    return float(test.pvalue)


def steps_share(found: Mapping[str, Found], name: str) -> np.ndarray:
    """Until a loss below the baseline's last, seed by seed, in shares of the run; infinite where it is not reached."""
    bounds = found[BASELINE].looks[:, -1]
    return np.array([share_until(x, bound) for x, bound in zip(found[name].looks, bounds, strict=True)])


def share_until(looks: np.ndarray, bound: float) -> float:
    """When losses first are at most a bound, in a straight line between two looks; infinite if they never are."""
    below = np.flatnonzero(looks <= bound)
    if not len(below):
        return np.inf
    i = below[0]
    before = looks[i - 1] if i and np.isfinite(looks[i - 1]) else looks[i]
    part = (before - bound) / (before - looks[i]) if before > looks[i] else 1.0
    return float((i + part) / LOOKS)


def finite(x: float) -> float:
    """A loss, infinite where a run diverged."""
    return x if np.isfinite(x) else np.inf


def sentences(found: Mapping[str, Found], gaps: Mapping[str, np.ndarray], sure: set[str]) -> list[str]:
    """What the numbers say."""
    named = lambda names: ", ".join(f"`{name}`" for name in names) or "none"
    order = sorted(gaps, key=lambda name: finite(gaps[name].mean()))
    ahead = [name for name in order if name in sure and gaps[name].mean() < 0]
    behind = [name for name in order if name in sure and gaps[name].mean() > 0]
    lost = [name for name in order if not np.isfinite(gaps[name]).all()]
    rest = [name for name in order if name not in sure and name not in lost]
    said = [f"Better than AdamW: {named(ahead)}. Worse: {named(behind)}. Not told apart: {named(rest)}."]
    said += [f"Diverged from some seed: {named(lost)}."] if lost else []
    quick = [name for name in ahead if length(found[name]) * found[name].times["ratio"] < 1]
    said += fewest(found)
    said.append(f"Of the better ones, those that reach AdamW's loss in less time on this machine: {named(quick)}.")
    halves = [half for gap in gaps.values() if np.isfinite(half := spread.interval(gap)[1])]
    last = found[BASELINE].looks[:, -1]
    if halves:
        said.append(
            f"AdamW's loss has a standard deviation of {last.std(ddof=1):.4f} over seeds; a paired difference is known "
            f"to ± {statistics.median(halves):.4f} (median)."
        )
    if "optax adamw" in gaps:
        middle, half = spread.interval(gaps["optax adamw"])
        said.append(f"AdamW of Optax, the same method with the same trials, differs by {middle:+.4f} ± {half:.4f}.")
    at_edge = [f"`{name}` ({', '.join(edges)})" for name in found if (edges := near_edges(name, found[name]))]
    said.append(f"Best numbers lie next to an end of their space for: {', '.join(at_edge) or 'none'}.")
    return said


def length(one: Found) -> float:
    """Of the shortest run; infinite where there is none that is short enough, or none is known."""
    return math.inf if one.shortest is None else one.shortest


def fewest(found: Mapping[str, Found]) -> list[str]:
    """How many times fewer steps the best contender needs than AdamW and than Muon as Optax has it."""
    known = {name: x for name in found if name != BASELINE and np.isfinite(x := length(found[name]))}
    if not known:
        return []
    best = min(known, key=lambda name: known[name])
    said = f"Fewest steps to AdamW's loss: `{best}`, {1 / known[best]:.2f} times fewer than AdamW"
    peer = "optax muon"
    if peer in known and best != peer:
        said += f" and {known[peer] / known[best]:.2f} times fewer than `{peer}`"
    return [said + "."]


def near_edges(name: str, found: Found) -> list[str]:
    """The numbers that lie within `EDGE` of an end of their space; the rate and the average, which matter most."""
    near = []
    for field in ("rate", "forget"):
        place = place_in(getattr(RECIPES[name].space, field), getattr(found.tuned.numbers, field))
        near += [field] if not EDGE < place < 1 - EDGE else []
    return near


def place_in(distribution: Any, x: float) -> float:
    """Where a number lies between the ends of its distribution, from 0 to 1."""
    scale = np.log if isinstance(distribution, tuning.log_uniform) else np.asarray
    low, high = scale(distribution.low), scale(distribution.high)
    return float((scale(x) - low) / (high - low))


def drawn(tasks: Mapping[str, Task], found: Mapping[str, Mapping[str, Found]]) -> Figure:
    """The differences of each task, the best at the top."""
    rows = max(len(results) for results in found.values())
    figure, grid = picture.panels(len(found), 1, width=4.4, height=1.2 + 0.19 * rows)
    for axes, (name, results) in zip(grid[0], found.items(), strict=True):
        gaps = {other: difference(results, other) for other in results if other != BASELINE}
        gaps = {other: gap for other, gap in gaps.items() if np.isfinite(gap).all()}
        names = sorted(gaps, key=lambda other: -gaps[other].mean())
        intervals = [spread.interval(gaps[other]) for other in names]
        middle, half = np.array(intervals).reshape(-1, 2).T
        picture.differences(axes, names, middle, half)
        picture.label(axes, name, f"{tasks[name].unit}, less AdamW's")
    return figure

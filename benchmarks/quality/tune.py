"""The search: for each recipe the same trials, and the same steps of them, whatever the recipe."""

import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from benchmarks.quality.recipes import RECIPES, Numbers, Recipe
from benchmarks.quality.records import Records, job
from benchmarks.quality.tasks import Task
from benchmarks.quality.training import LOOKS, runs
from gradtx import tuning

KEY = 0  # of the trials: every recipe's i-th lies at the same place of its space
SEED = 0  # of the first weights and the batches of all trials; no final run has it


class Round(NamedTuple):
    """Some trials from their beginning to the end of a run of `1 / part` of the steps, with a schedule of that length.

    Successive halving would stop long runs early, where those of high rates look bad that are best at the end.
    """

    members: int
    part: int


ROUNDS = (Round(16, 4), Round(6, 2), Round(2, 1))  # as much as 4, 3 and 2 whole runs
QUICK = (Round(4, 4), Round(2, 1))


class OutOfTimeError(Exception):
    """The time that was given is over."""


class Clock:
    """How long new runs may begin: `minutes` from now, or without end."""

    def __init__(self, minutes: float | None = None):
        self.end = None if minutes is None else time.monotonic() + 60 * minutes

    def check(self) -> None:
        """Raises `OutOfTimeError` if it is over."""
        if self.end is not None and time.monotonic() > self.end:
            raise OutOfTimeError


def losses(
    task: Task,
    name: str,
    each: Sequence[tuple[Numbers, int]],
    steps: int,
    held: str,
    records: Records,
    clock: Clock | None,
    recipe: Recipe | None = None,
) -> np.ndarray | None:
    """What is measured along runs, `[runs, LOOKS]`: from the records, and trained where it is not there.

    Args:
      each: numbers and seed of each run.
      clock: None: nothing is trained; the result is None where a run is missing.
      recipe: what the name stands for, where it is none of `RECIPES`.
    """
    records.refresh()
    keys = [job(task, name, numbers, steps, seed, held) for numbers, seed in each]
    missing = [i for i, key in enumerate(keys) if records.get(key) is None]
    if missing and clock is None:
        return None
    for begin in range(0, len(missing), task.together):
        assert clock is not None
        clock.check()
        some = missing[begin : begin + task.together]
        group = [(Numbers(**keys[i].numbers), keys[i].seed) for i in some]
        for i, run in zip(some, runs(task, recipe or RECIPES[name], group, steps, held), strict=True):
            records.add(keys[i], run._asdict())
            print(f"{task.name}  {name:20}  {steps:5} steps  seed {keys[i].seed}  {run.losses[-1]:.4f}", flush=True)
    return np.array([(records.get(key) or {})["losses"] for key in keys])


class Tuned(NamedTuple):
    """What a search found: the best numbers, and what each whole run of the last round measured at its end."""

    numbers: Numbers
    finals: list[float]


def tune(task: Task, name: str, rounds: Sequence[Round], records: Records, clock: Clock | None = None) -> Tuned | None:
    """The best numbers of a recipe, by the validation part. None if `clock` is None and a trial is missing.

    Raises:
      ValueError: every trial of the last round diverged.
    """
    trials = tuning.random(KEY, RECIPES[name].space, rounds[0].members)
    found = np.zeros(rounds[0].members)
    for this in rounds:
        trials = tuning.select(found, trials, this.members)
        each = [(tuning.member(trials, i), SEED) for i in range(this.members)]
        looks = losses(task, name, each, task.steps // this.part, "validation", records, clock)
        if looks is None:
            return None
        found = looks[:, -1]
    return Tuned(tuning.best(trials, found), found.tolist())


def check_steps(task: Task, rounds: Sequence[Round]) -> None:
    """Raises where a round's runs would not be a whole number of looks."""
    if any(task.steps % (LOOKS * this.part) for this in rounds):
        raise ValueError(f"`tune`: steps must be a multiple of {LOOKS} looks in each round, got {task.steps}.")

"""The comparison: each recipe's best numbers from seeds that the search did not see, and the time of its step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from benchmarks.quality import training
from benchmarks.quality.recipes import BASELINE, RECIPES
from benchmarks.quality.records import Records
from benchmarks.quality.tasks import Task
from benchmarks.quality.tune import Clock, Round, Tuned, losses, tune

SEEDS = (1, 2, 3, 4, 5)
REPETITIONS = 7  # of the time of a step


class Found(NamedTuple):
    """A recipe's result on a task.

    Attributes:
      tuned: the numbers, and how the search ended.
      looks: what the test part gave, `[seeds, LOOKS]`.
      times: of a step, as `training.Times`.
      shortest: the length of the shortest run that ends as low as the baseline's, as a share of it; None: not known.
    """

    tuned: Tuned
    looks: np.ndarray
    times: dict[str, Any]
    shortest: float | None = None


def run(
    task: Task,
    name: str,
    rounds: Sequence[Round],
    records: Records,
    clock: Clock | None = None,
    seeds: Sequence[int] = SEEDS,
    repetitions: int = REPETITIONS,
) -> Found | None:
    """A recipe's final runs and its time. Where it has not been tuned that is done first.

    None if `clock` is None and something is missing in the records.
    """
    tuned = tune(task, name, rounds, records, clock)
    baseline = tune(task, BASELINE, rounds, records, clock)
    if tuned is None or baseline is None:
        return None
    looks = losses(task, name, [(tuned.numbers, seed) for seed in seeds], task.steps, "test", records, clock)
    if looks is None:
        return None
    key = ("time", task.name, dict(task.setting), name)
    if records.get(key) is None and clock is not None:
        clock.check()
        numbers = [tuned.numbers, baseline.numbers]
        took = training.times(task, RECIPES[name], RECIPES[BASELINE], numbers, repetitions)
        records.add(key, took._asdict())
        print(f"{task.name}  {name:20}  {took.ms:.1f} ms a step, {took.ratio:.2f} of {BASELINE}'s", flush=True)
    times = records.get(key)
    return None if times is None else Found(tuned, looks, times)

"""How short a run may be: the fewest steps, with a whole schedule in them, that end as low as the baseline's run."""

import math
from collections.abc import Sequence

import numpy as np

from benchmarks.quality.recipes import BASELINE
from benchmarks.quality.records import Records
from benchmarks.quality.run import SEEDS
from benchmarks.quality.tasks import Task
from benchmarks.quality.training import LOOKS
from benchmarks.quality.tune import Clock, Round, losses, tune

SHORTENED = 3  # seeds
RESOLUTION = 14  # of a run's length; a line between the last two lengths tells more


def shortest(
    task: Task,
    name: str,
    rounds: Sequence[Round],
    records: Records,
    clock: Clock | None = None,
    seeds: Sequence[int] = SEEDS[:SHORTENED],
) -> float | None:
    """The length of a recipe's shortest run, as a share of the baseline's, by bisection; its numbers stay the same.

    Infinite if its whole run ends higher. None if `clock` is None and a run is missing in the records.
    """
    if name == BASELINE:
        return 1.0
    whole = task.steps // LOOKS  # lengths are counted in `LOOKS` steps, so that a look falls on the end

    def ends(name: str, length: int) -> np.ndarray | None:
        tuned = tune(task, name, rounds, records, clock)
        if tuned is None:
            return None
        each = [(tuned.numbers, seed) for seed in seeds]
        looks = losses(task, name, each, length * LOOKS, "test", records, clock)
        return None if looks is None else looks[:, -1]

    def gap(length: int) -> float | None:
        mine, its = ends(name, length), ends(BASELINE, whole)
        return None if mine is None or its is None else float(np.mean(mine - its))

    gaps = {0: math.inf, whole: gap(whole)}
    if gaps[whole] is None:
        return None
    if not gaps[whole] <= 0:
        return math.inf
    low, high = 0, whole
    while high - low > max(1, whole // RESOLUTION):
        length = (low + high) // 2
        gaps[length] = gap(length)
        if gaps[length] is None:
            return None
        low, high = (low, length) if gaps[length] <= 0 else (length, high)
    above, below = gaps[low], gaps[high]
    crossing = low + (high - low) * above / (above - below) if math.isfinite(above) else high
    return crossing / whole

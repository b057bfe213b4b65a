"""Runs: one compiled program for each recipe and task, whatever the numbers, the seed and the length."""

import functools
import statistics
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import gradtx
from benchmarks.quality.recipes import Numbers, Recipe, Setting
from benchmarks.quality.tasks import Task
from gradtx import tuning

LOOKS = 16  # measurements of a run, the last at its end


class Member(NamedTuple):
    """A run before its first step."""

    numbers: Numbers
    params: Any
    key: Array  # of its batches and of what it is measured on


class Length(NamedTuple):
    """How long a run is; arguments of the program, so that another length compiles nothing."""

    every: Any  # steps from one look to the next
    looks: Any  # at most `LOOKS`
    measured: Any  # False: nothing is measured


def train(member: Member, length: Length, data: Any, held: Any, *, task: Task, recipe: Recipe) -> Array:
    """What is measured at each look, float32 `[LOOKS]`; NaN where there was none."""
    tx = recipe.build(Setting(member.numbers, length.every * length.looks))
    batches, looks = jax.random.split(member.key)

    def step(i, now):
        params, state = now
        loss = lambda params: task.loss(params, data, jax.random.fold_in(batches, i))
        grads = jax.grad(loss)(params)
        updates, state = tx.update(grads, state, params, **_extra(tx, loss))
        return gradtx.apply_updates(params, updates), state

    def stretch(look, now):
        params, state, seen = now
        begin = look * length.every
        params, state = jax.lax.fori_loop(begin, begin + length.every, step, (params, state))
        measure = lambda: task.measure(_evaluated(tx, state, params), held, looks)
        return params, state, seen.at[look].set(jax.lax.cond(length.measured, measure, lambda: jnp.float32(jnp.nan)))

    start = member.params, tx.init(member.params), jnp.full(LOOKS, jnp.nan, jnp.float32)
    params, _, seen = jax.lax.fori_loop(0, length.looks, stretch, start)
    # Something of the parameters must come out, else a run that is not measured is no run.
    finite = jnp.isfinite(sum(jnp.sum(x) for x in jax.tree.leaves(params)))
    return jnp.where(finite | length.measured, seen, jnp.inf)


def _extra(tx: Any, loss: Any) -> dict[str, Any]:
    return {"obj_fn": loss} if isinstance(tx, gradtx.GradientTransformation) else {}


def _evaluated(tx: Any, state: Any, params: Any) -> Any:
    return gradtx.eval_params(tx, state, params) if isinstance(tx, gradtx.GradientTransformation) else params


def bytes_each(task: Task, recipe: Recipe) -> tuple[float, float]:
    """Bytes per parameter of a recipe's state, and of the parameters."""
    params = jax.eval_shape(task.begin, 0)
    some = Numbers(*(jnp.float32(x) for x in (1e-3, 0.1, 0.01, 0.1)))
    state = jax.eval_shape(lambda params: recipe.build(Setting(some, jnp.int32(100))).init(params), params)
    size = lambda tree: sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree))
    count = sum(x.size for x in jax.tree.leaves(params))
    return size(state) / count, size(params) / count


@functools.cache  # one function for each, so that its program is kept
def program(task: Task, recipe: Recipe) -> Any:
    return functools.partial(train, task=task, recipe=recipe)


class Run(NamedTuple):
    """What a run found, and what it took: a part of what its group took, where it had one."""

    losses: list[float]  # at each look
    seconds: float
    cpu_seconds: float


def members(task: Task, numbers: list[Numbers], seeds: list[int]) -> Member:
    """Runs, stacked."""
    each = zip(numbers, seeds, strict=True)
    return tuning.stack([Member(n, task.begin(seed), jax.random.key(seed)) for n, seed in each])


def runs(task: Task, recipe: Recipe, group: list[tuple[Numbers, int]], steps: int, held: str) -> list[Run]:
    """Trains a group of numbers and seeds side by side. What it takes to compile is not counted."""
    some = members(task, *map(list, zip(*group, strict=True)))
    shared = task.data, task.held[held]
    call = lambda *length: jax.block_until_ready(
        tuning.run_population(program(task, recipe), some, Length(*length), *shared)
    )
    call(1, 0, True)  # no step
    start = time.perf_counter(), time.process_time()
    losses = np.asarray(call(steps // LOOKS, LOOKS, True), float)
    seconds, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
    return [Run([float(f"{x:.6g}") for x in row], seconds / len(group), cpu / len(group)) for row in losses]


class Times(NamedTuple):
    """The time of a step: milliseconds, of the processor's time too, and the ratio to the baseline's beside it."""

    ms: float
    cpu_ms: float
    ratio: float


STEPS = 20  # of one measurement: twice what methods do now and then


def times(task: Task, recipe: Recipe, baseline: Recipe, numbers: list[Numbers], repetitions: int) -> Times:
    """A step beside the baseline's, in turns: medians, and the median ratio of neighbours' processor times."""
    taken = {0: [], 1: []}
    programs = [(program(task, x), members(task, [n], [0])) for x, n in zip((recipe, baseline), numbers, strict=True)]
    for i in range(repetitions + 1):
        for which in (0, 1)[:: 1 if i % 2 else -1]:
            train, some = programs[which]
            start = time.perf_counter(), time.process_time()
            shared = Length(STEPS, 1, False), task.data, task.held["validation"]
            jax.block_until_ready(tuning.run_population(train, some, *shared))
            took = time.perf_counter() - start[0], time.process_time() - start[1]
            if i:  # the first compiles
                taken[which].append([1e3 * x / STEPS for x in took])
    ratios = [mine[1] / its[1] for mine, its in zip(taken[0], taken[1], strict=True)]
    wall, cpu = (statistics.median(x) for x in zip(*taken[0], strict=True))
    return Times(wall, cpu, statistics.median(ratios))

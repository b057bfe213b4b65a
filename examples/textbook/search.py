"""Hyperparameter search: grid, random, Bayesian, population-based and halving, with one budget.

The space is a transformation with distributions in the place of three of its numbers. Every search may spend the steps
of 27 runs; a member is a point of the space, and members that train together are one compiled program. What is searched
for is the lowest validation loss of the digits network.
"""

import functools
import importlib.util
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import optuna

import gradtx
from examples.textbook import digits, picture, spread, study
from gradtx import tuning

SPACE = gradtx.adamw(
    tuning.log_uniform(1e-5, 10.0), b1=tuning.uniform(0.0, 0.99), weight_decay=tuning.log_uniform(1e-3, 10.0)
)
GRID = gradtx.adamw(
    tuning.choice([1e-5, 1e-2, 10.0]),
    b1=tuning.choice([0.0, 0.495, 0.99]),
    weight_decay=tuning.choice([1e-3, 0.1, 10]),
)


class Budget(NamedTuple):
    """What a search may spend, and how the searches divide it."""

    steps: int  # of one run
    members: int  # runs; the grid's members, and those that halving begins with
    batch: int  # members that a Bayesian search asks for at a time
    population: int  # members of population-based training ...
    rounds: int  # ... and how often the worst copy the best


FULL = Budget(steps=100, members=27, batch=3, population=9, rounds=9)
QUICK = Budget(steps=6, members=6, batch=3, population=3, rounds=2)


class Way(NamedTuple):
    """One search: the member-steps spent so far, the lowest validation loss by then, and its member's test loss."""

    spent: np.ndarray
    validation: np.ndarray
    test: np.ndarray


class Found(NamedTuple):
    """The ways of every search, one for each seed, and seconds for as many runs: together, and one after another."""

    ways: dict[str, list[Way]]
    together: list[float]
    apart: list[float]
    budget: Budget


def way(spent: list[int], seen: list) -> Way:
    """What was best after each batch of results, pairs of validation and test losses; NaN is left aside."""
    bests, best = [], (np.inf, np.nan)
    for losses, others in seen:
        i = int(tuning.rank(losses)[0])
        best = min(best, (float(losses[i]), float(others[i])))
        bests.append(best)
    return Way(np.cumsum(spent), *np.array(bests).T)


# Training


def train(tx: gradtx.GradientTransformation, data: digits.Data, seed: jax.Array, *, steps: int):
    """The validation and the test loss of a member after a whole run."""
    training = digits.advance(tx, digits.begin(tx, seed), data, steps)
    return digits.evaluate(training, data.validation)[0], digits.evaluate(training, data.test)[0]


def stretch(population: tuning.Population, data: digits.Data, *, steps: int):
    """A member after some more steps, and its losses."""
    tx, params, training = population
    training = digits.advance(tx, training._replace(params=params), data, steps)
    losses = digits.evaluate(training, data.validation)[0], digits.evaluate(training, data.test)[0]
    return tuning.Population(tx, training.params, training._replace(params=None)), *losses


def newcomers(members: gradtx.GradientTransformation, seed: int) -> tuning.Population:
    """Members before their first step."""
    training = jax.vmap(lambda tx: digits.begin(tx, seed))(members)
    return tuning.Population(members, training.params, training._replace(params=None))


@functools.cache  # one function for each number of steps, so that its program is kept
def for_steps(function: Callable, steps: int) -> Callable:
    """The function with a fixed number of steps."""
    return functools.partial(function, steps=steps)


# Searching


def grid(data, budget, seed):
    """Every combination of three values for each of three numbers."""
    return all_at_once(tuning.grid(GRID), data, budget.steps, seed)


def random(data, budget, seed):
    """Independent draws."""
    return all_at_once(tuning.random(seed, SPACE, budget.members), data, budget.steps, seed)


def all_at_once(members, data, steps, seed):
    """The way of members in their order."""
    losses = np.stack(tuning.run_population(for_steps(train, steps), members, data, seed))
    return way([steps] * losses.shape[1], list(losses.T[:, :, None]))


def bayesian(sampler: optuna.samplers.BaseSampler, data, budget, seed):
    """Batches of members asked of an Optuna study, which is told their losses."""
    search, seen = optuna.create_study(sampler=sampler), []
    for _ in range(budget.members // budget.batch):
        members, trials = tuning.ask(search, SPACE, budget.batch)
        seen.append(tuning.run_population(for_steps(train, budget.steps), members, data, seed))
        tuning.tell(search, trials, seen[-1][0])
    return way([budget.batch * budget.steps] * len(seen), seen)


def tpe(data, budget, seed):
    """Tree-structured Parzen estimator."""
    return bayesian(optuna.samplers.TPESampler(seed=seed, constant_liar=True, n_startup_trials=6), data, budget, seed)


def gaussian_process(data, budget, seed):
    """Gaussian process."""
    return bayesian(optuna.samplers.GPSampler(seed=seed, n_startup_trials=6), data, budget, seed)


def population_based(data, budget, seed):
    """The worst members copy the best, with their weights, and go on from there."""
    steps = budget.members * budget.steps // (budget.population * budget.rounds)
    population, seen = newcomers(tuning.random(seed, SPACE, budget.population), seed), []
    for t in range(budget.rounds):
        population, *losses = tuning.run_population(for_steps(stretch, steps), population, data)
        seen.append(losses)
        key = jax.random.fold_in(jax.random.key(seed), t)
        population, _ = tuning.evolve(key, losses[0], population, SPACE, fraction=0.25)
    return way([budget.population * steps] * budget.rounds, seen)


def halving(data, budget, seed):
    """A third of the members goes on after each rung."""
    spent, seen = [], []

    def advance(population, steps):
        spent.append(tuning.size(population) * steps)
        population, *losses = tuning.run_population(for_steps(stretch, steps), population, data)
        seen.append(losses)
        return population, losses[0]

    population = newcomers(tuning.random(seed, SPACE, budget.members), seed)
    tuning.successive_halving(advance, population, tuning.rungs(budget.members, budget.members * budget.steps))
    return way(spent, seen)


SEARCHES = {"grid": grid, "random": random, "Bayesian, TPE": tpe, "Bayesian, GP": gaussian_process}
SEARCHES |= {"population-based": population_based, "halving": halving}
NEEDS_TORCH = {"Bayesian, GP"}


def measure(quick: bool) -> Found:
    """Every search from every seed, then the time of 27 runs in one program and one after another."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    budget, seeds, repeats = (QUICK, 2, 1) if quick else (FULL, 5, 5)
    data = digits.load()
    left_out = {"grid", "Bayesian, GP"} if quick else set()
    if importlib.util.find_spec("torch") is None:
        left_out |= NEEDS_TORCH
    searches = {name: search for name, search in SEARCHES.items() if name not in left_out}
    ways = {name: [search(data, budget, seed) for seed in range(seeds)] for name, search in searches.items()}

    members = tuning.random(0, SPACE, budget.members)
    singles = [tuning.stack([tuning.member(members, i)]) for i in range(budget.members)]
    run = lambda some: jax.block_until_ready(tuning.run_population(for_steps(train, budget.steps), some, data, 0))
    for some in (members, singles[0]):  # compiled before the time is taken
        run(some)
    together, apart = [], []
    for _ in range(repeats):  # in turn, so that both see the same machine
        start = time.perf_counter()
        run(members)
        middle = time.perf_counter()
        for single in singles:
            run(single)
        together.append(middle - start)
        apart.append(time.perf_counter() - middle)
    return Found(ways, together, apart, budget)


def report(found: Found) -> study.Report:
    """The best of each search after the budget, and on the way."""
    rows = []
    for name, ways in found.ways.items():
        last = np.array([(w.validation[-1], w.test[-1]) for w in ways])
        rows.append([name, *[spread.median(x, ".3f") for x in last.T]])
    seeds, spendable = len(next(iter(found.ways.values()))), found.budget.members * found.budget.steps
    title = f"Best after {spendable} member-steps, {seeds} seeds: median (lowest to highest)"
    best = study.Table(title, ["search", "validation loss", "its test loss"], rows)
    ratios = np.divide(found.apart, found.together)
    seconds = [spread.median(x, ".2f") for x in map(np.asarray, (found.together, found.apart, ratios))]
    title = f"{found.budget.members} runs of {found.budget.steps} steps, compiled before; {len(ratios)} repeats in turn"
    times = study.Table(
        f"{title}: median (lowest to highest)",
        ["in one program, s", "one after another, s", "ratio"],
        [seconds],
    )

    figure, ((left, right),) = picture.panels(2)
    for i, ((name, ways), colour) in enumerate(zip(found.ways.items(), picture.COLOURS, strict=False)):
        spent = ways[0].spent / spendable
        picture.spread(left, spent, np.array([w.validation for w in ways]), colour, name, drawstyle="steps-post")
        last = [w.validation[-1] for w in ways]
        right.plot(last, np.full(len(last), -i), "o", color=colour, markersize=4, alpha=0.8)
        right.plot(np.median(last), -i, "|", color=colour, markersize=16, markeredgewidth=2)
    left.set_yscale("log")
    picture.label(left, "best validation loss so far", "share of the budget", "cross-entropy")
    picture.legend(left)
    right.set_yticks(-np.arange(len(found.ways)), found.ways)
    picture.label(right, "after the budget: every seed, median", "validation cross-entropy")

    medians = {name: np.median([w.validation[-1] for w in ways]) for name, ways in found.ways.items()}
    first = min(medians, key=lambda name: medians[name])
    others = [name for name in medians if name != first]
    rows = [
        [name, *[paired(found.ways[name], found.ways[first], of) for of in ("validation", "test")]] for name in others
    ]
    title = f"Loss less that of {first}, which has the lowest median, paired by seed: mean ± 95 % t-interval"
    against = study.Table(title, ["search", "validation", "test"], rows)
    clear = [row[0] for row in rows if row[2].endswith("*")]
    findings = [
        f"Marked: beyond the noise. In test loss {first} is ahead of {', '.join(clear) or 'none'} beyond the noise."
    ]
    if NEEDS_TORCH - found.ways.keys():
        findings.append("The Gaussian process was left out: it needs torch, and time that --quick does not take.")
    return study.Report([best, against, times], {"search": figure}, findings)


def paired(ways: list[Way], others: list[Way], of: str) -> str:
    """The mean difference of the last losses over the seeds, marked where its interval leaves out 0."""
    last = lambda ways: np.array([getattr(way, of)[-1] for way in ways])
    return spread.difference(*spread.interval(last(ways) - last(others)))


if __name__ == "__main__":
    sys.exit(study.main("search"))

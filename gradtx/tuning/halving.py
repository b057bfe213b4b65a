"""Successive halving (Jamieson & Talwalkar, 2016): many members get few steps, the best of them more."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.tuning.population import check_losses, rank
from gradtx.tuning.search import Stacked, size, take, whole
from gradtx.value import state


@state
class Rung(NamedTuple):
    """One round of successive halving."""

    members: int  # how many take part
    steps: int  # how many more steps each of them takes


def rungs(n: int, budget: int, factor: int = 3) -> list[Rung]:
    """The schedule of successive halving within a budget.

        members_0 = n,    members_{k+1} = floor(members_k / factor),    until fewer than `factor` are left
        steps_k = floor(what is left of the budget / (rungs left members_k))

    Each rung costs about as much as any other, and all together no more than the budget.

    Args:
      n: members at the start, at least `factor`.
      budget: steps of one member, summed over all members and rungs; at least n for each rung.
      factor: 2 or more; one in `factor` goes on.

    Source: Jamieson, Talwalkar, Non-stochastic best arm identification and hyperparameter optimization, AISTATS 2016,
      Figure 3 (arXiv:1502.07943), with the factor and the floor of Li et al., Hyperband, JMLR 18, 2018, Algorithm 1.
      What rounding leaves over goes to the rungs that follow.
    """
    factor = whole("rungs", "factor", factor, least=2)
    n, budget = whole("rungs", "n", n, least=factor), whole("rungs", "budget", budget)
    sizes = [n]
    while sizes[-1] >= factor:
        sizes.append(sizes[-1] // factor)
    if budget < n * len(sizes):
        raise ValueError(
            f"`rungs`: budget must be at least {n * len(sizes)}, one step for each of {n} members in the first of "
            f"{len(sizes)} rungs of equal cost, got {budget}."
        )
    schedule = []
    for k, members in enumerate(sizes):
        steps = budget // ((len(sizes) - k) * members)
        budget -= steps * members
        schedule.append(Rung(members, steps))
    return schedule


def select(losses: ArrayLike, population: Stacked, k: int) -> Stacked:
    """The k members of the smallest losses, best first; infinite losses come after finite ones, NaN last.

    Args:
      losses: one for each member.
      population: any stacked pytree.
      k: from 1 to the number of members.
    """
    n, k = size(population), whole("select", "k", k)
    if k > n:
        raise ValueError(f"`select`: k must be at most {n}, the number of members, got {k}.")
    return take(population, rank(check_losses("select", losses, n))[:k])


def successive_halving(
    advance: Callable[[Stacked, int], tuple[Stacked, ArrayLike]], population: Stacked, schedule: Sequence[Rung]
) -> tuple[Stacked, Array]:
    """Trains a population, keeping fewer members in each rung: the last ones and their losses, best first.

    Members that diverge go first. Where fewer than a rung's members have finite losses, the others fill it up, so that
    the shapes are those of the schedule; if all diverge, the losses returned are not finite.

    Args:
      advance: `advance(population, steps) -> (population, losses)` trains all members for so many more steps. It may
        call `run_population`; each rung has its shapes, hence its program.
      population: a stacked pytree of everything that a member needs to go on: hyperparameters, parameters, state.
      schedule: from `rungs`.

    Source: see `rungs`.
    """
    if not schedule or size(population) != schedule[0].members:
        raise ValueError(
            f"`successive_halving`: population has {size(population)} members, and schedule begins with "
            f"{schedule[0].members if schedule else 'no rung'}: make it with `rungs({size(population)}, budget)`."
        )
    losses = jnp.zeros(size(population))  # nothing is known of any member
    for rung in schedule:
        population, losses = advance(select(losses, population, rung.members), rung.steps)
        losses = check_losses("successive_halving", losses, rung.members)
    return select(losses, population, schedule[-1].members), losses[rank(losses)]

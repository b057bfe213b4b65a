"""Population-based training (Jaderberg et al., 2017): the worst copy the best, and move their hyperparameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import keys
from gradtx.tuning.population import check_losses, rank
from gradtx.tuning.search import Space, Stacked, distributions, size, take
from gradtx.tuning.space import is_distribution
from gradtx.value import state


@state
class Population(NamedTuple):
    """Members in training. Each part is stacked: one entry for each member on every leaf."""

    members: Stacked  # hyperparameters: transformations, or whatever else was drawn from a space
    params: Any
    state: Any


def exploit(key: Any, losses: ArrayLike, population: Stacked, fraction: float = 0.2) -> tuple[Stacked, Array]:
    """Truncation selection: each of the worst members becomes a copy of one of the best, drawn uniformly.

    Of n members, max(1, int(fraction n)) are the worst, and as many the best. A member whose loss is not finite counts
    as one of the worst, however many they are, and is never copied. If no loss is finite, all stay.

    Args:
      key: an int, or a key of `jax.random`.
      losses: one for each member; smaller is better.
      population: a `Population`, or any other stacked pytree; what it holds of a member is copied together.
      fraction: in (0, 0.5].

    Returns:
      The population, and `source`, int32: whose copy each member now is, itself if it stayed.
    Source: Jaderberg et al., Population based training of neural networks, 2017, section 4.1.1, truncation selection
      (arXiv:1711.09846). Members that diverged are ours: there, losses are finite.
    """
    n = size(population)
    if n < 2:
        raise ValueError("`exploit`: population has one member, and nobody to copy: it needs at least 2.")
    if not 0 < fraction <= 0.5:
        raise ValueError(f"`exploit`: fraction must lie in (0, 0.5], got {fraction!r}.")
    losses = check_losses("exploit", losses, n)
    worst = max(1, int(fraction * n))
    finite = jnp.isfinite(losses)
    order = rank(losses)
    place = jnp.zeros(n, jnp.int32).at[order].set(jnp.arange(n, dtype=jnp.int32))
    donors = jnp.minimum(worst, jnp.sum(finite))
    donor = order[jax.random.randint(keys.typed(keys.checked("exploit", "key", key)), (n,), 0, jnp.maximum(donors, 1))]
    replaced = ((place >= n - worst) | ~finite) & (donors > 0)
    source = jnp.where(replaced, donor, jnp.arange(n, dtype=jnp.int32))
    return take(population, source), source


def explore(
    key: Any,
    population: Stacked,
    space: Space,
    changed: ArrayLike,
    *,
    factors: tuple[float, ...] = (0.8, 1.2),
    resample: float = 0.25,
) -> Stacked:
    """Moves the hyperparameters of some members; their parameters and state, and the other members, stay.

    With probability `resample` a hyperparameter is drawn anew; else it is multiplied by one of `factors` and kept
    within its support, or, for a `choice`, moves to a neighbour among the values. Each one for itself.

    Args:
      key: an int, or a key of `jax.random`.
      population: a `Population`, or stacked members alone.
      space: what the members were drawn from.
      changed: bool, one for each member: whose hyperparameters move.
      factors: positive; each equally likely.
      resample: a probability, in [0, 1].

    Source: Jaderberg et al., 2017, section 4.1.1, perturb and resample. There an experiment uses one of the two.
    """
    if not factors or not all(factor > 0 for factor in factors):
        raise ValueError(f"`explore`: factors must be positive numbers, at least one, got {factors!r}.")
    if not 0 <= resample <= 1:
        raise ValueError(f"`explore`: resample must lie in [0, 1], got {resample!r}.")
    if isinstance(population, Population):
        members = explore(key, population.members, space, changed, factors=factors, resample=resample)
        return population._replace(members=members)
    changed = jnp.asarray(changed)
    if changed.shape != (size(population),):
        raise ValueError(f"`explore`: changed must have shape ({size(population)},), got {changed.shape}.")
    distributions("explore", space)  # there is at least one
    places, structure = jax.tree.flatten(space, is_leaf=is_distribution)
    try:
        leaves = structure.flatten_up_to(population)
    except ValueError as error:
        raise ValueError(f"`explore`: the members were not drawn from this space: {error}.") from None
    key = keys.typed(keys.checked("explore", "key", key))

    def leaf(i, distribution, x):
        anew, fresh, near = jax.random.split(jax.random.fold_in(key, i), 3)
        drawn = distribution.sample(fresh, changed.shape)
        moved = distribution.perturb(near, x, factors)
        moved = jnp.where(jax.random.bernoulli(anew, resample, changed.shape), drawn, moved)
        return jnp.where(changed, moved.astype(x.dtype), x)

    pairs = enumerate(zip(places, leaves, strict=True))
    return structure.unflatten([leaf(i, d, x) if is_distribution(d) else x for i, (d, x) in pairs])


def evolve(
    key: Any,
    losses: ArrayLike,
    population: Stacked,
    space: Space,
    *,
    fraction: float = 0.2,
    factors: tuple[float, ...] = (0.8, 1.2),
    resample: float = 0.25,
) -> tuple[Stacked, Array]:
    """One step of population-based training: `exploit`, then `explore` for those that were replaced.

    A pure function, so a run whose key is `jax.random.fold_in(key, round)` resumes, from the population and the number
    of the round, with the bits that it would have had.

    Returns:
      The population, and `source`, int32: whose copy each member now is, itself if it stayed.
    Arguments and source: `exploit`, `explore`.
    """
    who, how = jax.random.split(keys.typed(keys.checked("evolve", "key", key)))
    population, source = exploit(who, losses, population, fraction)
    changed = source != jnp.arange(source.size, dtype=jnp.int32)
    return explore(how, population, space, changed, factors=factors, resample=resample), source

"""A population: many members trained by one compiled program, and their order."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike

from gradtx.tuning.search import Stacked, member, size, take, whole


def run_population(
    train: Callable,
    members: Stacked,
    *args: Any,
    at_once: int | None = None,
    max_bytes: int | None = None,
    mesh: Mesh | None = None,
) -> Stacked:
    """Trains all members in one compiled program: the stacked results of `train(member, *args)`.

    The program is kept: another population of the same shapes, with the same `train`, compiles nothing. A member's NaN
    stays in its own results.

    Args:
      train: a pure function of one member that returns a pytree of arrays. It is compiled in, so hand over the same
        function each time, and data through `args`.
      members: stacked, from `grid`, `random` or `stack`.
      *args: what all members share, such as the data: pytrees of arrays, arguments of the program.
      at_once: members that a device trains side by side, the rest group after group; None for all. Fewer need less
        memory and more time.
      max_bytes: finds an `at_once` with which the results and the temporary arrays of the program take no more bytes
        than this on a device, as the compiler counts them (`memory_analysis`; members and args come on top). The first
        call compiles for all at once; if that is too large, for 1, and for the number where the line through both
        meets the bound; from there on down as long as that is too large.
      mesh: members are divided over all its devices; None for one device. Where they do not come out even, some are
        trained twice and dropped.

    Raises:
      ValueError: one member needs more than `max_bytes`; or both `at_once` and `max_bytes` are given.
    """
    n = size(members)
    if at_once is not None and max_bytes is not None:
        raise ValueError("`run_population`: max_bytes chooses at_once: give one of the two.")
    at_once = n if at_once is None else whole("run_population", "at_once", at_once)
    devices = 1 if mesh is None else mesh.size
    copies = -n % devices
    if mesh is not None:
        mesh = Mesh(mesh.devices.ravel(), "members")
        members = take(members, np.arange(n + copies) % n) if copies else members
        members = jax.device_put(members, NamedSharding(mesh, P("members")))
        args = jax.device_put(args, NamedSharding(mesh, P()))
    each = (n + copies) // devices
    at_once = min(at_once, each)
    if max_bytes is not None:
        at_once = fitting(train, members, args, mesh, each, whole("run_population", "max_bytes", max_bytes))
    results = _program(train, members, args, at_once, mesh)
    return take(results, np.arange(n)) if copies else results


@partial(jax.jit, static_argnums=(0, 3, 4))
def _program(train: Callable, members: Stacked, args: tuple, at_once: int, mesh: Mesh | None) -> Stacked:
    def on_a_device(members, args):
        one = lambda member: train(member, *args)
        return jax.vmap(one)(members) if at_once == size(members) else jax.lax.map(one, members, batch_size=at_once)

    if mesh is None:
        return on_a_device(members, args)
    split = jax.shard_map(
        on_a_device,
        mesh=mesh,
        in_specs=(P("members"), P()),
        out_specs=P("members"),
        check_vma=False,  # devices share nothing, so `train` need not say what varies over them
    )
    return split(members, args)


def program_bytes(train: Callable, members: Stacked, args: tuple, at_once: int, mesh: Mesh | None = None) -> int:
    """What the compiled program of `run_population` needs on a device: results and temporary arrays, in bytes."""
    memory = _program.lower(train, members, args, at_once, mesh).compile().memory_analysis()
    if memory is None:
        raise RuntimeError("`run_population`: this backend does not say what a program needs: give at_once instead.")
    return memory.output_size_in_bytes + memory.temp_size_in_bytes


def fitting(train: Callable, members: Stacked, args: tuple, mesh: Mesh | None, n: int, max_bytes: int) -> int:
    """How many of a device's n members it trains at once within the bound; see `run_population`."""
    at_once = n
    while (bytes_ := program_bytes(train, members, args, at_once, mesh)) > max_bytes:
        one = program_bytes(train, members, args, 1, mesh)
        if one > max_bytes:
            raise ValueError(
                f"`run_population`: max_bytes is {max_bytes}, and with one member at once {one} are needed."
            )
        at_once = 1 + (max_bytes - one) * (at_once - 1) // (bytes_ - one)  # on the line through both; it is smaller
    return at_once


def rank(losses: ArrayLike) -> Array:
    """The members' indices, int32, the smallest loss first: finite losses, then infinite ones, then NaN.

    Args:
      losses: one for each member. Members of equal losses keep their order.
    """
    losses = jnp.asarray(losses)
    if losses.ndim != 1:
        raise ValueError(f"`rank`: losses must have one number for each member, got shape {losses.shape}.")
    kind = jnp.where(jnp.isnan(losses), 2, jnp.where(jnp.isfinite(losses), 0, 1))
    return jnp.lexsort((losses, kind)).astype(jnp.int32)


def best(members: Stacked, losses: ArrayLike) -> Any:
    """The member with the smallest finite loss, as from `member`.

    Raises:
      ValueError: no loss is finite, or their number is not that of the members.
    """
    losses = check_losses("best", losses, size(members))
    first = int(rank(losses)[0])
    if not np.isfinite(losses[first]):
        raise ValueError(f"`best`: no loss is finite, every member diverged: {np.asarray(losses)}.")
    return member(members, first)


def check_losses(owner: str, losses: ArrayLike, n: int) -> Array:
    """The losses as an array, checked to be one for each of n members."""
    losses = jnp.asarray(losses)
    if losses.shape != (n,):
        raise ValueError(f"`{owner}`: losses must have shape ({n},), one for each member, got {losses.shape}.")
    return losses

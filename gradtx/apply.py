"""The last step: adding the updates to the parameters; and copies of parameters that follow them."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from gradtx import leafwise, paths


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, added in float32 or wider and rounded once to each parameter's dtype.

    Parameters whose update is None, that are None themselves, or that are not floating, stay as they are.

    Raises:
      ValueError: a leaf is missing or has the wrong shape; its path is named. Nothing is broadcast.
    """

    def leaf(u, p):
        if p is None or not leafwise.is_float(p):
            return p
        with jax.numpy_dtype_promotion("standard"):  # updates may be narrower, or integers
            return (leafwise.widen(p) + u).astype(jnp.result_type(p))

    try:
        paths.check_match(updates, params, or_none=True)
    except paths.MismatchError as error:
        raise ValueError(f"`apply_updates`: {error}.") from None
    leaves, structure = jax.tree.flatten(params, is_leaf=paths.is_none)
    _, steps = paths.aligned(structure, updates, params)
    return structure.unflatten([p if u is None else leaf(u, p) for u, p in zip(steps, leaves, strict=True)])


def incremental_update(new_tensors: Any, old_tensors: Any, step_size: ArrayLike) -> Any:
    """A moving average's next value: step_size new + (1 - step_size) old, as of a target network.

    Computed in float32 or wider and rounded once to the old tensor's dtype. Below float32 a small step is lost to that
    rounding: keep the average in float32. Where the new tensors hold None, or what is not floating, they are taken as
    they are.

    Args:
      step_size: in [0, 1]; 1 takes the new tensors.

    Raises:
      ValueError: a leaf is missing or has the wrong shape; its path is named.
    Source: Polyak, Juditsky, Acceleration of stochastic approximation by averaging, 1992.
    """

    def leaf(new, old):
        if new is None or not leafwise.is_float(new):
            return new
        with jax.numpy_dtype_promotion("standard"):
            mean = step_size * leafwise.widen(new) + (1.0 - step_size) * leafwise.widen(old)
            return jnp.asarray(mean, jnp.result_type(old) if leafwise.is_float(old) else None)

    structure, old = _beside("incremental_update", new_tensors, old_tensors)
    return structure.unflatten(map(leaf, jax.tree.leaves(new_tensors, is_leaf=paths.is_none), old))


def periodic_update(new_tensors: Any, old_tensors: Any, steps: ArrayLike, update_period: ArrayLike) -> Any:
    """The new tensors where `steps` is a multiple of `update_period`, else the old ones: a target network.

    The old tensors' dtypes stay.

    Args:
      steps: updates made so far.
      update_period: positive.

    Raises:
      ValueError: a leaf is missing or has the wrong shape; its path is named.
    Source: Mnih et al., Human-level control through deep reinforcement learning, Nature 2015.
    """
    structure, old = _beside("periodic_update", new_tensors, old_tensors)
    new = jax.tree.leaves(new_tensors, is_leaf=paths.is_none)
    pairs = [(n, o) for n, o in zip(new, old, strict=True) if n is not None]
    take = lambda pairs: [jnp.asarray(n, jnp.result_type(o)) for n, o in pairs]
    keep = lambda pairs: [jnp.asarray(o) for _, o in pairs]
    with jax.numpy_dtype_promotion("standard"):
        chosen = iter(jax.lax.cond(jnp.mod(steps, update_period) == 0, take, keep, pairs))
    return structure.unflatten([None if n is None else next(chosen) for n in new])


def _beside(owner: str, new: Any, old: Any) -> tuple[Any, list]:
    """The structure of the new tensors, and the old ones in its places."""
    try:
        paths.check_match(new, old)
    except paths.MismatchError as error:
        told = str(error).replace("updates", "new_tensors").replace("params", "old_tensors")
        raise ValueError(f"`{owner}`: {told}.") from None
    structure = jax.tree.structure(new, is_leaf=paths.is_none)
    return structure, paths.aligned(structure, old, new)[1]

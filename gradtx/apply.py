"""The last step: adding the updates to the parameters."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise, paths


def apply_updates(params: Any, updates: Any) -> Any:
    """params + updates, added in float32 or wider and rounded once to each parameter's dtype.

    Parameters whose update is None, and parameters that are not floating, stay as they are.

    Raises:
      ValueError: a leaf is missing or has the wrong shape; its path is named. Nothing is broadcast.
    """

    def leaf(u, p):
        if not leafwise.is_float(p):
            return p
        with jax.numpy_dtype_promotion("standard"):  # updates may be narrower, or integers
            return (leafwise.widen(p) + u).astype(jnp.result_type(p))

    try:
        paths.check_match(updates, params)
    except paths.MismatchError as error:
        raise ValueError(f"`apply_updates`: {error}.") from None
    leaves, structure = jax.tree.flatten(params, is_leaf=paths.is_none)
    _, steps = paths.aligned(structure, updates, params)
    return structure.unflatten([p if u is None else leaf(u, p) for u, p in zip(steps, leaves, strict=True)])

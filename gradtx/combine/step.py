"""A whole step: gradients in, parameters and state out."""

from typing import Any

from gradtx.apply import apply_updates
from gradtx.combine.compress import compress_state
from gradtx.core import Params, State, Updates, as_transformation


def step(tx: Any, params: Params, state: State, grads: Updates, **extra: Any) -> tuple[Params, State]:
    """The parameters and the state after an update: `update` and `apply_updates` in one.

        params, state = gradtx.step(tx, params, state, grads)

    The same numbers as the two calls, up to roundings where operations are fused otherwise. It is for
    `compress_state`, whose state on one GPU is then read and written once, in one kernel for each leaf in which all is
    computed entry by entry: with AdamW and 8-bit blocks 16.1 bytes per float32 parameter, where the two calls move 44.

    Args:
      tx: a transformation, or a foreign `(init, update)` pair.
      params: the parameters now.
      state: from `tx.init`, or from the last step.
      grads: gradients, the parameters' structure.
      **extra: as for `update`.
    """
    tx = as_transformation("step", "tx", tx)
    found = tx.fused_step(params, state, grads, extra) if isinstance(tx, compress_state) else None
    if found is not None:
        return found
    updates, state = tx.update(grads, state, params, **extra)
    return apply_updates(params, updates), state

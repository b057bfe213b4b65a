"""An update that is made or not."""

from collections.abc import Callable
from contextlib import nullcontext

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.combine.record import is_heard, listening, repeat
from gradtx.core import State, Updates
from gradtx.placement import differing_like, laid_like


def update_if(
    condition: Array,
    update: Callable[[], tuple],
    instead: Updates | None,
    state: State,
    otherwise: Callable | None = None,
) -> tuple:
    """What `update()` returns where the condition holds, else `instead` and the state as it was, or `otherwise()`.

    It is a branch: where the condition does not hold, nothing of the update is computed. What transformations record in
    it comes out.

    Args:
      condition: bool scalar.
      update: returns updates and a state like `instead` and `state`.
      instead: None, zeros like the updates that are made.
      otherwise: does, too; what is recorded in it is not heard.
    """
    heard, about = is_heard(), []  # of what is recorded in the branch: all but the values, which come out of it

    def made():
        with listening() if heard else nullcontext([]) as said:
            outgoing, new_state = update()
        about[:] = said
        strong = leafwise.strong(leafwise.widen(outgoing))
        outgoing = strong if instead is None else leafwise.cast_like(outgoing, instead)
        return differing_like((outgoing, leafwise.cast_like(new_state, state), [x.value for x in said]), condition)

    def not_made():
        types = jax.eval_shape(made)
        nothing = leafwise.zeros(types[2])
        if otherwise is None:
            zeros = lambda x: laid_like(jnp.zeros_like(x), x)
            kept = jax.tree.map(zeros, types[0]) if instead is None else instead
            return differing_like((kept, state, nothing), condition)
        outgoing, new_state = otherwise()
        outgoing, new_state = leafwise.cast_like(outgoing, instead), leafwise.cast_like(new_state, state)
        return differing_like((outgoing, new_state, nothing), condition)

    outgoing, new_state, values = jax.lax.cond(condition, made, not_made)
    repeat([x._replace(value=value) for x, value in zip(about, values, strict=True)])
    return outgoing, new_state

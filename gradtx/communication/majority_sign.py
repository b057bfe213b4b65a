"""signSGD with majority vote (Bernstein et al., 2019): one small integer per entry."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.collectives import Axis, as_axis, names, require_unreduced, size
from gradtx.core import EmptyState, GradientTransformation, transformation
from gradtx.moments import by_parts
from gradtx.value import static


@transformation
class majority_sign(GradientTransformation):
    """Replaces each entry of the updates by the sign that most devices have there.

        u = sign(sum over devices of sign(g)),    0 where it is a draw

    Of complex entries, both parts' signs. NaN has no vote.

    Args:
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which devices vote. None: there is one.

    Sends: 1 byte per parameter up to 127 devices, 2 up to 32,767, 4 beyond: votes are counted in the integers that hold
      them. Twice that for complex parameters.
    State: none. Reads: each device's own gradients, which nothing has summed (`gradtx.parallel.varying`).
    Source: Bernstein, Zhao, Azizzadenesheli, Anandkumar, signSGD with majority vote is communication efficient and
      fault tolerant, ICLR 2019, Algorithm 1 (arXiv:1810.05291); its momentum is an `ema` before `majority_sign`.
    """

    axis: Axis = static(default=None, convert=as_axis)

    def init(self, params):
        return EmptyState()

    def update(self, updates, state, params=None, **extra):
        require_unreduced(updates, self.axis)
        votes = votes_dtype(size(self.axis))

        def vote(x):
            if self.axis is None:
                return jnp.where(jnp.isnan(x), 0, jnp.sign(x))
            sign = jnp.where(jnp.isnan(x), 0, jnp.sign(x)).astype(votes)
            return jnp.sign(jax.lax.psum(sign, names(self.axis))).astype(x.dtype)

        return leafwise.map(lambda g: by_parts(vote, g), updates), state


def votes_dtype(voters: int) -> Any:
    """The smallest integers that hold the sum of that many signs."""
    return next(kind for kind in (jnp.int8, jnp.int16, jnp.int32) if voters <= jnp.iinfo(kind).max)

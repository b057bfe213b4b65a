"""bfloat16 parameters that learn by chance: they move to one of two neighbours, and on average where they should."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import keys, leafwise, paths
from gradtx.clock import start, tick
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.storage import rounding
from gradtx.value import part, state


@state
class RoundStochasticallyState(NamedTuple):
    """State of `round_stochastically`."""

    count: Array  # int32 scalar: updates made so far
    rounded: Params  # of each parameter that is rounded an array without entries, in its dtype; None for the others
    inner_state: State


@transformation
class round_stochastically(GradientTransformation):
    """Rounds what each bfloat16 parameter becomes to one of its two neighbours by chance, so that no step is lost.

        tx = round_stochastically(adamw(1e-4), key=0)

        u = r(p + inner's u) - p                 r(x): the bfloat16 below x or above, with mean x

    `apply_updates` then has nothing to round. A step of a hundredth of the distance to the next bfloat16 is made once
    in a hundred times. It costs no memory, and its noise is up to half a step of bfloat16 per update; `split_weights`
    has none.

    Args:
      inner: a transformation that ends in a descent step, or a foreign `(init, update)` pair; the whole chain.
      key: an int, or a key of `jax.random`. The rounding is a function of the key, the time and the leaf's place, so a
        run resumed from a checkpoint goes on with the same.

    State: 4 bytes, and the inner one's. Reads: params; what the inner one reads.
    Raises:
      ValueError: no params.
    Source: Gupta et al., Deep learning with limited numerical precision, ICML 2015 (arXiv:1502.02551); for bfloat16
      weights Zamirai et al., Revisiting BFloat16 training, 2020 (arXiv:2010.06192).
    """

    inner: GradientTransformation = part(convert=as_transformation)
    key: Any = part(default=0, convert=keys.checked)

    def init(self, params):
        mark = lambda p: jnp.zeros_like(p, shape=(0,)) if p.dtype == jnp.bfloat16 else None
        marks = leafwise.choose(mark, paths.plain(params))
        return RoundStochasticallyState(start(), marks, self.inner.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        outgoing, inner = self.inner.bare_update(updates, state.inner_state, params, **extra)
        key = jax.random.fold_in(keys.typed(self.key), state.count)
        places = iter(range(len(jax.tree.leaves(outgoing, is_leaf=paths.is_none))))
        its_key = leafwise.choose(lambda u: jax.random.fold_in(key, next(places)), outgoing)
        outgoing = leafwise.map(_rounded, outgoing, its_key, state.rounded, params)
        return outgoing, RoundStochasticallyState(tick(state.count), state.rounded, inner)

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner_state, params)


def _rounded(u: Array, key: Array, mark: Any, p: Array) -> Array:
    return u if mark is None else rounding.stochastic(p + u, key) - p

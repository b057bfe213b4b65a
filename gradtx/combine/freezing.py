"""Parameters that stay as they are."""

from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.combine.masking import MaskedState, as_mask, chosen, kept, masked, update_part
from gradtx.combine.stateless import set_to_zero
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.value import part, static


def freeze(mask: Any) -> GradientTransformation:
    """Replaces the updates of the chosen leaves by 0. It goes after what would move them, such as a weight decay.

    Args:
      mask: which leaves stay as they are; see `add_decayed_weights`.

    State: none. Reads: updates only. To keep state for the others alone: `selective_transform`.
    """
    return masked(set_to_zero(), mask)


@transformation
class selective_transform(GradientTransformation):
    """Applies a transformation to the leaves that are not frozen; the frozen ones' updates become 0.

    Args:
      optimizer: a transformation, or a foreign `(init, update)` pair.
      freeze_mask: which leaves stay as they are; see `add_decayed_weights`.

    State: the inner one's, for the leaves that are not frozen alone. Reads: what the inner one reads.
    """

    optimizer: GradientTransformation = part(convert=as_transformation)
    freeze_mask: Any = static(convert=as_mask, kw_only=True)

    def init(self, params):
        return MaskedState(self.optimizer.bare_init(kept(params, self._trained(params))))

    def update(self, updates, state, params=None, **extra):
        mask = self._trained(updates if params is None else params)
        outgoing, inner = update_part(self.optimizer, mask, updates, state.inner_state, params, extra)
        outgoing = leafwise.choose(lambda g, u: jnp.zeros_like(g) if u is None else u, updates, outgoing)
        return outgoing, MaskedState(inner)

    def eval_params(self, state, params):
        inside = self.optimizer.eval_params(state.inner_state, kept(params, self._trained(params)))
        return leafwise.choose(lambda p, x: p if x is None else x, params, inside)

    def _trained(self, params):
        return jax.tree.map(lambda frozen: not frozen, chosen(self.freeze_mask, params, self.name))

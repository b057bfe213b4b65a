"""Cautious updates (Liang et al., 2024): a step only where the method and the gradient of now agree."""

from typing import Any, Literal

import jax
import jax.numpy as jnp

from gradtx import leafwise, paths
from gradtx.clock import Hyperparameter, at, now
from gradtx.collectives import Axis, as_axis, total
from gradtx.combine.slots import slots
from gradtx.core import GradientTransformation, State, Updates, as_transformation, transformation
from gradtx.geometry import agreement
from gradtx.moments import whole_size
from gradtx.reductions import summed
from gradtx.value import flag, number, part, static

RESCALES = ("mean", "count", None)


@transformation
class cautious(GradientTransformation):
    """Drops the entries of a method's direction that point against the gradient, and makes up for their number.

        w = 1 where u g > 0, else factor                u: what `inner` makes of the gradient g
        u' = u w / max(mean(w), least)                  the mean is over a leaf

    It goes around the method, before the weight decay and the learning rate:

        chain(cautious(scale_by_adam()), add_decayed_weights(0.1), scale_by_learning_rate(1e-3))

    Where all entries agree no bit is changed, in leaves of up to 2^24 entries.

    Args:
      inner: a transformation from gradients to gradients, or a foreign `(init, update)` pair.
      rescale: "mean", as above; "count", by n / (k + 1), where k is the sum of w over the n entries; None, not at all.
      least: of the mean, in [0, 1]; a leaf of which less agrees is not made up for in full. Read with "mean".
      factor: what is left of an entry that does not agree, in [0, 1]; 1 is `inner` alone.
      compare: what is compared with the gradient in the place of u: the name of a slot of the inner state, such as the
        mean "mu", as it is after the update. None: u.
      of_steps: `inner` returns steps, as what ends in a learning rate does; they agree where u g < 0.
      axis: as in `clip_by_global_norm`.

    State: the inner one's. Reads: gradients once more; what the inner one reads.
    Raises:
      ValueError: the inner state has no slot of that name for a leaf.
    Source: Liang, Chen, Liu, Liu, Cautious optimizers, 2024 (arXiv:2411.16085), which is "count"; "mean" with 1e-3 is
      its authors' code for AdamW, and timm's. `factor`, with a `least` of 1e-5, is lion-pytorch's (lucidrains). A
      complex entry agrees where its scalar product with the gradient, as one of two reals, is positive.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    rescale: Literal["mean", "count"] | None = static(default="mean", one_of=RESCALES, kw_only=True)
    least: Hyperparameter = number(default=1e-3, within="[0, 1]", kw_only=True)
    factor: Hyperparameter = number(default=0.0, within="[0, 1]", kw_only=True)
    compare: str | None = static(default=None, kw_only=True)
    of_steps: bool = flag(default=False, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return self.inner.bare_init(params)

    def state_at(self, count):
        return self.inner.state_at(count)

    def eval_params(self, state, params):
        return self.inner.eval_params(state, params)

    def update(self, updates, state, params=None, **extra):
        least, factor = at(now(), self.least, self.factor)
        outgoing, state = self.inner.bare_update(updates, state, params, **extra)
        paths.check_shapes(outgoing, updates)

        def leaf(u, g, x):
            agrees = agreement(g, x) < 0 if self.of_steps else agreement(x, jnp.conj(g)) > 0
            weight = jnp.where(agrees, 1.0, factor).astype(u.real.dtype)
            if self.rescale is None:
                return u * weight
            (kept,) = yield from summed((weight, None))
            kept = total(kept, self.axis) + (1 if self.rescale == "count" else 0)
            mean = kept * (1 / max(whole_size(u, self.axis), 1))
            mean = jnp.maximum(mean, least) if self.rescale == "mean" else mean
            return u * (weight * jnp.where(mean > 0, 1 / jnp.where(mean > 0, mean, 1), 0))

        compared = outgoing if self.compare is None else self._slot(state, outgoing)
        return leafwise.map(leaf, outgoing, updates, compared), state

    def _slot(self, state: State, like: Updates) -> Any:
        """The slot that is compared, of the leaves that have a gradient."""
        arrays, (leaves, structure) = jax.tree.leaves(state), jax.tree.flatten(like)
        found = {of: arrays[i] for i, of in slots(state, (self.compare or "",), like)}
        for i, name in enumerate(paths.names(like)):
            if i not in found:
                raise ValueError(f"`cautious`: the inner state has no slot {self.compare!r} for {name!r}.")
        return structure.unflatten([found[i] for i in range(len(leaves))])

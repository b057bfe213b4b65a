"""Tiger (Su, 2023): the sign of the mean gradient, by the size of the parameters."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, Params, require_params, transformation
from gradtx.moments import abs_sq, by_parts, rms, root
from gradtx.reductions import summed
from gradtx.transforms.decay import decayed
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state, static, storage_dtype, whole


def vectors(params: Params) -> Any:
    """The mask of the leaves of fewer than two dimensions: biases, scales."""
    return jax.tree.map(lambda p: p.ndim < 2, params)


@state
class ScaleByTigerState(NamedTuple):
    """State of `scale_by_tiger`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`


@transformation
class scale_by_tiger(GradientTransformation):
    """Replaces the gradient by the sign of its running mean, adds the decay, and multiplies by the parameter's size.

        mu = beta mu + (1 - beta) g                                         from zero
        u = (sign(mu) + weight_decay p) max(rms(p), min_scale)              rms of a leaf, or of each of its rows
        u = sign(mu) / 2                                                    of vectors

    Args:
      beta: decay of mu, in [0, 1).
      weight_decay: per update, in units of signs per unit of parameter. Not negative.
      mu_dtype: storage of mu; None means float32 or wider.
      min_scale: the least size, so that what starts at zero moves. Positive, in units of the parameters.
      vectors_mask: which leaves are vectors: they move alike whatever their size, and do not decay. By default those
        of fewer than two dimensions. None: none. For the forms of masks see `add_decayed_weights`.
      rows_mask: which leaves have a size for each vector along their last dimension, such as "embedding$". None: none.
      steps: gradients per step: mu decays at the first of them, each enters it with (1 - beta) / steps, and u is 0
        until the last. So gradients are accumulated without memory. A learning rate's schedule counts gradients.
      axis: as in `clip_by_global_norm`, of leaves; a row lies on one device.

    State: 4 bytes per float32 parameter. Reads: params.
    Source: Su, Tiger: a tight-fisted optimizer, 2023 (kexue.fm/archives/9512, github.com/bojone/tiger), where vectors
      are what has bias, beta or gamma in its name, rows what has embeddings, and there is no `min_scale`. Its answer to
      NaN, to shrink the parameters, is not here: see `apply_if_finite`. A complex entry counts as its two parts.
    """

    beta: Hyperparameter = number(default=0.965, within="[0, 1)")
    weight_decay: Hyperparameter = number(default=0.01, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    min_scale: Hyperparameter = number(default=1e-3, within="(0, inf)", kw_only=True)
    vectors_mask: Any = static(default=vectors, convert=as_mask, kw_only=True)
    rows_mask: Any = static(default=None, convert=as_mask, kw_only=True)
    steps: int = whole(default=1, within="[1, inf)")
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return ScaleByTigerState(start(), mu=leafwise.zeros(params, self.mu_dtype))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        beta, decay, min_scale = at(state.count, self.beta, self.weight_decay, self.min_scale)
        count = tick(state.count)
        is_last = count % self.steps == 0
        old, new = beta, (1 - beta) / self.steps
        if self.steps > 1:
            old = jnp.where(state.count % self.steps == 0, beta, 1.0)

        def leaf(g, mu, p, is_vector, by_rows):
            mu = old * mu + new * g
            u = by_parts(jnp.sign, mu)
            if is_vector:
                u = u * 0.5
            else:
                u = decayed(u, p, decay) * (yield from size_of(p, by_rows and p.ndim > 0))
            return u if self.steps == 1 else jnp.where(is_last, u, 0), mu

        def size_of(p, by_rows):
            if not by_rows:
                return jnp.maximum((yield from rms(p, self.axis)), min_scale)
            (square,) = yield from summed((abs_sq(p), (p.ndim - 1,)))
            return jnp.expand_dims(jnp.maximum(root(square * (1 / max(p.shape[-1], 1))), min_scale), -1)

        masks = [self._chosen(mask, params) for mask in (self.vectors_mask, self.rows_mask)]
        updates, mu = leafwise.unzip_map(leaf, updates, state.mu, params, *masks, outputs=2)
        return updates, ScaleByTigerState(count, mu)

    def _chosen(self, mask: Any, params: Params) -> Any:
        return chosen(as_mask(self.name, "mask", False) if mask is None else mask, params, self.name)


def tiger(
    learning_rate: Hyperparameter,
    beta: Hyperparameter = 0.965,
    weight_decay: Hyperparameter = 0.01,
    mu_dtype: DTypeLike | None = None,
    *,
    min_scale: Hyperparameter = 1e-3,
    vectors_mask: Any = vectors,
    rows_mask: Any = None,
    steps: int = 1,
    axis: Axis = None,
) -> GradientTransformation:
    """Tiger: every coordinate moves by a share of its layer's size. Other arguments: `scale_by_tiger`.

        p <- p - learning_rate rms(p) (sign(mu) + weight_decay p)

    Args:
      learning_rate: a step's size as a fraction of the layer's; of vectors, twice the step, in their own units.
    """
    options = {"min_scale": min_scale, "vectors_mask": vectors_mask, "rows_mask": rows_mask, "axis": axis}
    return chain(scale_by_tiger(beta, weight_decay, mu_dtype, steps, **options), scale_by_learning_rate(learning_rate))

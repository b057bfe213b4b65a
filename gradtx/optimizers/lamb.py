"""LAMB (You et al., 2020): AdamW with every layer's step as long as its parameters, for large batches."""

import math
from typing import Any

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import abs_sq, again, ema, ema_mass, root
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.transforms.decay import decayed
from gradtx.transforms.normalize import trust_ratio
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, static


@transformation
class scale_by_lamb(GradientTransformation):
    """Turns the gradient into AdamW's direction and scales each leaf of it to its parameter's norm.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        r = m / (sqrt(v + eps_root) + eps) + weight_decay p
        u = r |p| / |r|                   u = r where |p| or |r| is 0

    The same as `scale_by_adam`, `add_decayed_weights` and `scale_by_trust_ratio`, in two passes over memory less: r is
    computed again for its norm instead of being kept.

    Args:
      b1, b2, eps, eps_root: as in `scale_by_adam`.
      weight_decay: per update, in units of r per unit of parameter. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      trust_ratio_mask: which leaves are scaled; of the others u = r. None: all.
      max_ratio: bound of |p| / |r|, positive; infinity bounds nothing. 1 lets no leaf move faster than by `adamw`.
      axis: as in `clip_by_global_norm`.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: params.
    Source: You et al., Large batch optimization for deep learning, ICLR 2020, Algorithm 2 (arXiv:1904.00962), phi being
      the identity. No clipping by the global norm first, which NVIDIA's version adds: chain `clip_by_global_norm(1.0)`.
      It also leaves alone what does not decay (timm: without `always_adapt`), which is `trust_ratio_mask`; `max_ratio`
      is timm's `trust_clip`.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    trust_ratio_mask: Any = static(default=None, convert=as_mask, kw_only=True)
    max_ratio: Hyperparameter = number(default=math.inf, within="(0, inf]", kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return scale_by_adam().bare_init(params)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        b1, b2, eps, eps_root, decay = at(state.count, self.b1, self.b2, self.eps, self.eps_root, self.weight_decay)
        (most,) = at(state.count, self.max_ratio)
        bounds_none = isinstance(most, float) and most == math.inf
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, mu, nu, p, decays, is_scaled):
            def direction(mu, nu, p):
                r = mu * scale1 / (root(nu * scale2 + eps_root) + eps)
                return decayed(r, p, decay) if decays else r

            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            if not is_scaled:
                return direction(mu, nu, p), mu, nu
            ratio = yield from trust_ratio(direction(*again(mu, nu, p)), p, axis=self.axis)
            return direction(mu, nu, p) * (ratio if bounds_none else jnp.minimum(ratio, most)), mu, nu

        masks = (chosen(mask, params, self.name) for mask in (self.mask, self.trust_ratio_mask))
        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, params, *masks, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def lamb(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-6,
    eps_root: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    trust_ratio_mask: Any = None,
    max_ratio: Hyperparameter = math.inf,
    axis: Axis = None,
) -> GradientTransformation:
    """LAMB: AdamW's direction, scaled leaf by leaf to the parameter's norm. Other arguments: `scale_by_lamb`.

        p <- p - learning_rate r |p| / |r|           r = adam(g) + weight_decay p

    Args:
      learning_rate: each leaf's step as a fraction of the leaf's norm.
    """
    options = {"trust_ratio_mask": trust_ratio_mask, "max_ratio": max_ratio, "axis": axis}
    direction = scale_by_lamb(b1, b2, eps, eps_root, weight_decay, mask, **options)
    return chain(direction, scale_by_learning_rate(learning_rate))

"""StableAdamW (Wortsman et al., 2023): AdamW that slows down where its second moment lags behind the gradients."""

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, tick
from gradtx.collectives import Axis, as_axis
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.moments import abs_sq, ema, ema_mass, rms, root, shrinkage
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.transforms.decay import decayed
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, static, storage_dtype


@transformation
class scale_by_stable_adam(GradientTransformation):
    """Turns the gradient into AdamW's direction, and shortens it where gradients are larger than their second moment.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = (m / (sqrt(v) + eps) + weight_decay p) / max(1, rms(g / max(sqrt(v), eps)) / threshold)      rms per leaf

    Where gradients suddenly grow, v has not followed yet, and Adam's steps are too long: the cause of spikes of the
    loss. The rms is 1 while v describes the gradients. `clip_by_block_rms(1.0)` behind any method bounds the rms of its
    own updates, as Adafactor does.

    Args:
      b1: decay of mu, in [0, 1). Its memory is about 1 / (1 - b1) updates.
      b2: decay of nu, in [0, 1).
      eps: in units of the gradient. Not negative. At 0 an entry whose v is 0 counts as 0.
      mu_dtype: storage of mu; None means float32 or wider.
      weight_decay: per update, in units of u per unit of parameter. Not negative. It is shortened with the rest.
      mask: which leaves decay; see `add_decayed_weights`.
      threshold: the largest rms, positive; infinity shortens nothing.
      axis: as in `clip_by_global_norm`.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: params.
    Source: Wortsman et al., Stable and low-precision training for large-scale vision-language models, NeurIPS 2023,
      Algorithm 2 (arXiv:2304.13013); the clipping: Shazeer, Stern, Adafactor, ICML 2018, section 5 (arXiv:1804.04235).
      It removes the bias by decays that rise, (b^t - b) / (b^t - 1), which is the same m and v. NaN as in
      `clip_by_global_norm`.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.99, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-6, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    threshold: Hyperparameter = number(default=1.0, within="(0, inf]", kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        return scale_by_adam(mu_dtype=self.mu_dtype).bare_init(params)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        b1, b2, eps, decay = at(state.count, self.b1, self.b2, self.eps, self.weight_decay)
        (threshold,) = at(state.count, self.threshold)
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, mu, nu, p, decays):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            size = root(nu * scale2)
            factor = shrinkage((yield from rms(g / jnp.maximum(size, eps), self.axis)), threshold)
            u = mu * scale1 / (size + eps)
            return (decayed(u, p, decay) if decays else u) * factor, mu, nu

        decays = chosen(self.mask, params, self.name)
        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, params, decays, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def stable_adamw(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.99,
    eps: Hyperparameter = 1e-6,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 1e-2,
    mask: Any = None,
    *,
    threshold: Hyperparameter = 1.0,
    axis: Axis = None,
) -> GradientTransformation:
    """AdamW whose layers slow down while their gradients surprise. Other arguments: `scale_by_stable_adam`.

        p <- p - learning_rate (m / (sqrt(v) + eps) + weight_decay p) / max(1, rms(g / max(sqrt(v), eps)) / threshold)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative. optimi's
        `decouple_lr` divides the rate in it by its largest: weight_decay / largest here.
    """
    direction = scale_by_stable_adam(b1, b2, eps, mu_dtype, weight_decay, mask, threshold=threshold, axis=axis)
    return chain(direction, scale_by_learning_rate(learning_rate))

"""AdamP and SGDP (Heo et al., 2021): no step along weights whose length means nothing."""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.masking import as_mask, chosen
from gradtx.core import GradientTransformation, State, as_transformation, require_params, transformation
from gradtx.moments import abs_sq, again, length
from gradtx.optimizers.adam import scale_by_adam
from gradtx.reductions import summed
from gradtx.transforms.momentum import trace
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number, part, state, static


def _whole(owner: str, name: str, axis: Any) -> int:
    if isinstance(axis, bool) or not isinstance(axis, int):
        raise TypeError(f"`{owner}`: {name} must be a whole number, got {axis!r}.")
    return axis


@state
class TangentialState(NamedTuple):
    """State of `tangential`."""

    count: Array  # int32 scalar: updates made so far
    inner: State  # that of the method inside


@transformation
class tangential(GradientTransformation):
    """Takes away what a method's updates have along weights that are scale-invariant, and adds a decay.

        n = inner(g)
        u = n - <n, p> p / (|p| + eps)^2 + decay_ratio weight_decay p           of scale-invariant weights
        u = n + weight_decay p                                                  of others

    A layer that a normalization follows does not change when its weights are scaled, so its gradients are orthogonal to
    them. Momentum is not, and makes them longer, and so their effective rate smaller. By that they are known: each
    output's weights are, where of all of them |<g, p>| < delta |g| |p| / sqrt(entries of one); else the whole leaf's,
    where that holds of it. Leaves of fewer than two dimensions are others.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair, of gradients: in front of the learning rate.
      weight_decay: per update, in units of updates per unit of parameter. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.
      delta: how near to orthogonal. Not negative; 0 finds no leaf.
      decay_ratio: the decay of scale-invariant weights as a share of the others'. Not negative.
      eps: added to norms, in units of gradients and of parameters. Positive.
      output_axis: the axis of the outputs: the last of JAX's kernels, 0 of PyTorch's.

    State: that of `inner`. Reads: params; gradients and parameters once more, for the norms. Under `jax.shard_map` and
      `jax.pmap` a device's part counts as a leaf.
    Source: Heo et al., AdamP: slowing down the slowdown for momentum optimizers on scale-invariant weights, ICLR 2021,
      Algorithms 1 and 2 (arXiv:2006.08217), and their code, which has views of two kinds and the eps.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    weight_decay: Hyperparameter = number(default=0.0, within="[0, inf)")
    mask: Any = static(default=None, convert=as_mask)
    delta: Hyperparameter = number(default=0.1, within="[0, inf)", kw_only=True)
    decay_ratio: Hyperparameter = number(default=0.1, within="[0, inf)", kw_only=True)
    eps: Hyperparameter = number(default=1e-8, within="(0, inf)", kw_only=True)
    output_axis: int = static(default=-1, convert=_whole, kw_only=True)

    def init(self, params):
        return TangentialState(start(), self.inner.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        decay, delta, ratio, eps = at(state.count, self.weight_decay, self.delta, self.decay_ratio, self.eps)
        steps, inner = self.inner.bare_update(updates, state.inner, params, **extra)

        def along(sums, entries):
            """How much of p is to be taken away, and whether any."""
            products, squares_g, squares_p, steps_along = sums
            norm_g, norm_p = length(squares_g) + eps, length(squares_p) + eps
            is_invariant = jnp.max(jnp.abs(products) / norm_g / norm_p) < delta / math.sqrt(entries)
            return steps_along / jnp.square(norm_p), is_invariant

        def leaf(g, n, p, decays):
            radial, share = 0.0, 1.0
            if p.ndim > 1 and p.size:
                axis = self.output_axis % p.ndim
                over = tuple(i for i in range(p.ndim) if i != axis)
                (g,) = again(g)  # its square is in the inner method too: stored for both
                of_entries = geometry.product(g, p), abs_sq(g), abs_sq(p), geometry.product(n, p)
                sums = yield from summed(*((x, over) for x in of_entries))
                by_output, output_is = along(sums, p.size // p.shape[axis])
                totals = yield from summed(*((x, None) for x in again(*sums)))  # not of p's entries, which XLA would do
                by_leaf, leaf_is = along(totals, p.size)
                radial = jnp.where(output_is, jnp.expand_dims(by_output, over), jnp.where(leaf_is, by_leaf, 0))
                share = jnp.where(output_is | leaf_is, ratio, 1.0)
            factor = decay * share - radial if decays else -radial
            return n + factor * (jnp.conj(p) if jnp.iscomplexobj(p) else p)

        decays = chosen(self.mask, params, self.name)
        return leafwise.map(leaf, updates, steps, params, decays), TangentialState(tick(state.count), inner)

    def eval_params(self, state, params):
        return self.inner.eval_params(state.inner, params)


def adamp(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    nesterov: bool = False,
    delta: Hyperparameter = 0.1,
    decay_ratio: Hyperparameter = 0.1,
    output_axis: int = -1,
) -> GradientTransformation:
    """AdamW that does not make scale-invariant weights longer. Other arguments: `tangential`.

        p <- p - learning_rate u                        u of Adam's m / (sqrt(v) + eps)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      b1, b2, eps, nesterov: as in `scale_by_adam`.

    State: 8 bytes per float32 parameter. Reads: params.
    """
    direction = scale_by_adam(b1, b2, eps, nesterov=nesterov)
    options = {"delta": delta, "decay_ratio": decay_ratio, "output_axis": output_axis}
    return chain(tangential(direction, weight_decay, mask, **options), scale_by_learning_rate(learning_rate))


def sgdp(
    learning_rate: Hyperparameter,
    momentum: Hyperparameter = 0.0,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    nesterov: bool = False,
    delta: Hyperparameter = 0.1,
    decay_ratio: Hyperparameter = 0.1,
    output_axis: int = -1,
) -> GradientTransformation:
    """`sgd` that does not make scale-invariant weights longer. Other arguments: `tangential`.

        p <- p - learning_rate u                        u of the decayed sum of gradients

    Args:
      learning_rate: in units of the parameters per unit of gradient.
      momentum: decay of the sum, in [0, 1].
      weight_decay: decoupled. The authors' code divides it by 1 - momentum.
      nesterov: look one step ahead.

    State: 4 bytes per float32 parameter. Reads: params.
    """
    options = {"delta": delta, "decay_ratio": decay_ratio, "output_axis": output_axis}
    direction = tangential(trace(momentum, nesterov), weight_decay, mask, **options)
    return chain(direction, scale_by_learning_rate(learning_rate))

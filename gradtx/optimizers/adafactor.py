"""Adafactor (Shazeer & Stern, 2018): a second moment kept as its row and column means."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.combine.factored import PAIRS, Dims, factored_dims, over_factored_root, zero_means
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, ema, root
from gradtx.transforms.clipping import clip_by_block_rms
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.momentum import ema as moving_average
from gradtx.transforms.normalize import scale_by_param_block_rms
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Squares
from gradtx.value import flag, number, state, static, whole


@state
class FactoredState(NamedTuple):
    """State of `scale_by_factored_rms`."""

    count: Array  # int32 scalar: updates made so far
    v_row: Params  # running mean of |g|^2 over the columns: the leaf's shape without its larger dimension; or None
    v_col: Params  # running mean of |g|^2 over the rows: the leaf's shape without its second largest; or None
    v: Squares  # running mean of |g|^2 where a leaf is not factored, else None


def decay_that_grows(step: Array, rate: Array) -> Array:
    """1 - (step + 1)^-rate: 0 at step 0, toward 1 after."""
    return 1 - (as_float(step) + 1) ** -rate


@transformation
class scale_by_factored_rms(GradientTransformation):
    """Divides the gradient by a running root mean square that is kept as an outer product of means.

        row = d row + (1 - d) mean_columns(|g|^2 + epsilon),   col = d col + (1 - d) mean_rows(|g|^2 + epsilon)
        v = row col / mean(row);   u = g / sqrt(v),            d = 1 - (t + 1)^-decay_rate, t = 0 at the first update

    A leaf is factored over two dimensions where the smaller of them has at least `min_dim_size_to_factor` entries.
    Other leaves keep v = d v + (1 - d) (|g|^2 + epsilon).

    Args:
      factored: False keeps every leaf's full second moment.
      decay_rate: the exponent that makes the memory grow; in (0, inf).
      step_offset: the count at which d restarts from 0, for a run that continues from trained parameters.
      min_dim_size_to_factor: in entries.
      epsilon: added to |g|^2, in squared units of the gradient. Not negative.
      decay_rate_fn: d as a function of (t - step_offset, decay_rate).
      factored_dims: which two: the "largest", of equal ones the last; or the "last", as in PyTorch and Transformers.

    State: 4 (1/rows + 1/columns) bytes per float32 parameter of a factored leaf, 4 of another. Reads: gradients only.
    Source: Shazeer, Stern, Adafactor, ICML 2018, Algorithm 4 without the clipping, with section 7.2's decay
      (arXiv:1804.04235). Differs from Optax: a slot that a leaf does not use holds None, not an array of one entry;
      params are not needed; before `step_offset` d is 0, not NaN.
    """

    factored: bool = flag(default=True)
    decay_rate: Hyperparameter = number(default=0.8, within="(0, inf)")
    step_offset: Hyperparameter = number(default=0.0, within="[0, inf)")
    min_dim_size_to_factor: int = whole(default=128, within="[1, inf)")
    epsilon: Hyperparameter = number(default=1e-30, within="[0, inf)")
    decay_rate_fn: Callable = static(default=decay_that_grows)
    factored_dims: str = static(default="largest", one_of=PAIRS, kw_only=True)

    def init(self, params):
        def leaf(p):
            square = leafwise.zeros(p, real=True)
            if (dims := self._dims(jnp.shape(p))) is None:
                return None, None, square
            return *zero_means(square, dims), None

        v_row, v_col, v = leafwise.unzip_map(leaf, params, outputs=3)
        return FactoredState(start(), v_row, v_col, v)

    def update(self, updates, state, params=None, **extra):
        rate, offset, epsilon = at(state.count, self.decay_rate, self.step_offset, self.epsilon)
        decay = self.decay_rate_fn(jnp.maximum(as_float(state.count) - offset, 0), rate)

        def leaf(g, v_row, v_col, v):
            if (dims := self._dims(g.shape)) is None:
                v = ema(v, abs_sq(g) + epsilon, decay)
                return g / root(v), None, None, v
            u, v_row, v_col = yield from over_factored_root(g, v_row, v_col, dims, decay, epsilon)
            return u, v_row, v_col, None

        updates, *moments = leafwise.unzip_map(leaf, updates, state.v_row, state.v_col, state.v, outputs=4)
        return updates, FactoredState(tick(state.count), *moments)

    def _dims(self, shape: tuple[int, ...]) -> Dims | None:
        return factored_dims(shape, self.min_dim_size_to_factor, self.factored_dims) if self.factored else None


def adafactor(
    learning_rate: Hyperparameter | None = None,
    min_dim_size_to_factor: int = 128,
    decay_rate: Hyperparameter = 0.8,
    decay_offset: Hyperparameter = 0,
    multiply_by_parameter_scale: bool = True,
    clipping_threshold: Hyperparameter | None = 1.0,
    momentum: Hyperparameter | None = None,
    dtype_momentum: DTypeLike | None = jnp.float32,
    weight_decay_rate: Hyperparameter | None = None,
    eps: Hyperparameter = 1e-30,
    factored: bool = True,
    weight_decay_mask: Any = None,
    *,
    factored_dims: str = "largest",
) -> GradientTransformation:
    """Adafactor: steps of about the learning rate, relative to the parameter, with almost no state.

        u = g / sqrt(v), v factored;   u = u / max(1, rms(u) / clipping_threshold)
        u = learning_rate u max(rms(p), 1e-3);   p <- p - u - weight_decay_rate p

    Args:
      learning_rate: relative to each leaf's root mean square; None means 1. The paper's relative step is the
        schedule min(0.01, 1 / sqrt(t)).
      min_dim_size_to_factor, decay_rate, eps, factored, factored_dims: as in `scale_by_factored_rms`.
      decay_offset: its `step_offset`.
      multiply_by_parameter_scale: False makes the learning rate absolute, in units of the parameters.
      clipping_threshold: bound on each leaf's rms before the learning rate; None or infinity for none.
      momentum: decay of an average of the steps, in [0, 1), not debiased; None for none.
      dtype_momentum: its storage; None means float32 or wider.
      weight_decay_rate: fraction of p removed per update; not multiplied by the learning rate. None for none.
      weight_decay_mask: which leaves decay; see `add_decayed_weights`.

    State: 4 (1/rows + 1/columns) bytes per float32 parameter of a factored leaf; 4 more with momentum. Reads: params.
    Source: Shazeer, Stern, Adafactor, ICML 2018, Algorithms 4 and 5 (arXiv:1804.04235).
    """
    links: list = [
        scale_by_factored_rms(
            factored, decay_rate, decay_offset, min_dim_size_to_factor, eps, factored_dims=factored_dims
        ),
    ]
    if multiply_by_parameter_scale:
        links.append(scale_by_param_block_rms(clipping_threshold=clipping_threshold))
    elif clipping_threshold is not None:
        links.append(clip_by_block_rms(clipping_threshold))
    if learning_rate is not None:
        links.append(scale_by_learning_rate(learning_rate, flip_sign=False))
    if momentum is not None:
        links.append(moving_average(momentum, debias=False, accumulator_dtype=dtype_momentum))
    if weight_decay_rate is not None:
        links.append(add_decayed_weights(weight_decay_rate, weight_decay_mask))
    return chain(*links, scale_by_learning_rate(1.0))

"""Norms, counts and moments as functions, under Optax's names; methods here are made of `moments` and `leafwise`."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise, moments
from gradtx.moments import abs_sq as abs_sq


def global_norm(updates: Any) -> Array:
    """The L2 norm of all leaves together, a scalar, accumulated in float32 or wider whatever their dtype.

    Its slope at 0 is 0.
    """
    return leafwise.norm(updates)


def safe_increment(count: ArrayLike) -> Array:
    """count + 1, or the largest number of the count's dtype once it is reached: an integer does not wrap.

    Raises:
      ValueError: the count is neither an integer nor floating.
    """
    dtype = jnp.result_type(count)
    if jnp.issubdtype(dtype, jnp.integer):
        largest = jnp.iinfo(dtype).max
    elif jnp.issubdtype(dtype, jnp.floating):
        largest = jnp.finfo(dtype).max
    else:
        raise ValueError(f"`safe_increment`: count must be an integer or floating, got {dtype.name}.")
    one, largest = jnp.array(1, dtype), jnp.array(largest, dtype)
    return jnp.where(count < largest, count + one, largest)


safe_int32_increment = safe_increment  # its older name


@partial(jax.jit, static_argnames=("ord", "axis", "keepdims"))
def safe_norm(
    x: ArrayLike,
    min_norm: ArrayLike,
    ord: int | float | str | None = None,
    axis: int | tuple[int, ...] | None = None,
    keepdims: bool = False,
) -> Array:
    """max(|x|, min_norm), with slope 0 where the norm lies below the bound, also at 0, where a norm has none.

    Args:
      x: any array. bfloat16 and float16 are computed in float32, and the result has x's dtype.
      min_norm: not negative.
      ord, axis, keepdims: as in `jnp.linalg.norm`.
    """
    x = jnp.asarray(x)
    wide = leafwise.widen(x)
    size = lambda x: jnp.linalg.norm(x, ord=ord, axis=axis, keepdims=keepdims)
    kept = jnp.linalg.norm(wide, ord=ord, axis=axis, keepdims=True) > min_norm
    norm = size(jnp.where(kept, wide, jnp.ones_like(wide)))  # where it is small, the slope of another array's norm
    kept = jnp.reshape(kept, norm.shape)
    real = jnp.finfo(x.dtype).dtype if jnp.issubdtype(x.dtype, jnp.inexact) else norm.dtype
    return jnp.where(kept, norm, jnp.asarray(min_norm, norm.dtype)).astype(real)


def safe_root_mean_squares(x: ArrayLike, min_rms: ArrayLike) -> Array:
    """max(sqrt(mean |x|^2), min_rms), with slope 0 where the root lies below the bound, also at 0."""
    x = jnp.asarray(x)
    wide = leafwise.widen(x)
    square = moments.mean_square(wide)
    kept = square > jnp.square(jnp.asarray(min_rms, square.dtype))
    rms = jnp.where(kept, jnp.sqrt(jnp.where(kept, square, 1)), jnp.asarray(min_rms, square.dtype))
    return rms.astype(jnp.finfo(x.dtype).dtype) if jnp.issubdtype(x.dtype, jnp.inexact) else rms


@jax.custom_vjp
def _scaled(inputs: Any, scale: ArrayLike) -> Any:
    return inputs


_scaled.defvjp(lambda inputs, scale: (inputs, scale), lambda scale, g: (jax.tree.map(lambda x: x * scale, g), None))


def scale_gradient(inputs: Any, scale: float) -> Any:
    """The inputs, whose gradients are multiplied by `scale` on the way back: 0 stops them, -1 turns them around.

    Args:
      inputs: a pytree of arrays.
      scale: any finite number.

    Source: Ganin et al., Domain-adversarial training of neural networks, 2016 (arXiv:1505.07818), for -1.
    """
    if scale == 1.0:
        return inputs
    return jax.lax.stop_gradient(inputs) if scale == 0.0 else _scaled(inputs, scale)


def update_moment(updates: Any, moments: Any, decay: ArrayLike, order: int) -> Any:
    """decay m + (1 - decay) g^order of each leaf; None where the updates hold None."""
    return _mapped(lambda g, m: (1 - decay) * g**order + decay * m, updates, moments)


def update_moment_per_elem_norm(updates: Any, moments: Any, decay: ArrayLike, order: int) -> Any:
    """decay m + (1 - decay) |g|^order of each leaf, real for complex g; None where the updates hold None."""

    def leaf(g, m):
        power = abs_sq(g) ** (order // 2) if order % 2 == 0 else jnp.abs(g) ** order
        return (1 - decay) * power + decay * m

    return _mapped(leaf, updates, moments)


def update_infinity_moment(updates: Any, moments: Any, decay: ArrayLike, eps: ArrayLike) -> Any:
    """max(|g| + eps, decay m) of each leaf; None where the updates hold None."""
    return _mapped(lambda g, m: jnp.maximum(jnp.abs(g) + eps, decay * m), updates, moments)


def bias_correction(moment: Any, decay: ArrayLike, count: ArrayLike) -> Any:
    """An average from zero without its bias: m / (1 - decay^count) of each leaf, in the leaf's dtype."""
    mass = moments.ema_mass(jnp.asarray(decay, jnp.result_type(float)), jnp.asarray(count))
    return jax.tree.map(lambda m: (leafwise.widen(m) / mass).astype(m.dtype), moment)


def _mapped(leaf: Any, updates: Any, moments: Any) -> Any:
    """As `jax.tree.map`, with None for a leaf without an update."""
    is_none = lambda x: x is None
    return jax.tree.map(lambda g, m: None if g is None else leaf(g, m), updates, moments, is_leaf=is_none)

"""Logarithms of the softmax, with derivatives that keep nothing but what is there anyway. Arrays in, arrays out."""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

Axes = int | tuple[int, ...] | None


def masked(logits: Array, where: Array | None, axis: Axes) -> Array:
    """The logits, with minus infinity where the mask does not hold: e^x = 0. A row without any entry becomes 0."""
    if where is None:
        return logits
    where = jnp.broadcast_to(where, jnp.broadcast_shapes(jnp.shape(where), logits.shape)).astype(bool)
    return jnp.where(where, logits, jnp.where(jnp.any(where, axis=axis, keepdims=True), -jnp.inf, 0.0))


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_softmax(x: Array, axis: Axes) -> Array:
    """x - log sum e^x over one axis or several.

    Its derivative is written with x alone: automatic differentiation would keep e^x for it, an array as large as x, and
    wider where x is bfloat16.
    """
    shifted = x - _peak(x, axis)
    return shifted - jnp.log(jnp.sum(jnp.exp(shifted), axis=axis, keepdims=True))


@log_softmax.defjvp
def _slope_of_log_softmax(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    return log_softmax(x, axis), dx - jnp.sum(softmax(x, axis) * dx, axis=axis, keepdims=True)


def softmax(x: Array, axis: Axes) -> Array:
    """e^x / sum e^x; 0 of minus infinities alone."""
    powers = jnp.exp(x - _peak(x, axis))
    total = jnp.sum(powers, axis=axis, keepdims=True)
    return powers / jnp.where(total == 0, 1, total)


@partial(jax.custom_jvp, nondiff_argnums=(2,))
def cross_entropy(x: Array, weights: Array, axis: Axes) -> Array:
    """-sum w log softmax(x), with 0 log 0 = 0. Its derivatives are sum(w) softmax(x) - w, and -log softmax(x)."""
    return -jnp.sum(jnp.where(weights == 0, 0, weights * log_softmax(x, axis)), axis=axis)


@cross_entropy.defjvp
def _slope_of_cross_entropy(axis, primals, tangents):
    (x, weights), (dx, dweights) = primals, tangents
    log_p, mass = log_softmax(x, axis), jnp.sum(weights, axis=axis, keepdims=True)
    change = (mass * softmax(x, axis) - weights) * dx - jnp.where(jnp.isinf(log_p), 0, log_p) * dweights
    return cross_entropy(x, weights, axis), jnp.sum(change, axis=axis)


@partial(jax.custom_jvp, nondiff_argnums=(1,))
def log_total(x: Array, axis: Axes) -> Array:
    """log sum e^x. Its derivative is softmax(x)."""
    peak = _peak(x, axis)
    return jnp.squeeze(jnp.log(jnp.sum(jnp.exp(x - peak), axis=axis, keepdims=True)) + peak, axis)


@log_total.defjvp
def _slope_of_log_total(axis, primals, tangents):
    (x,), (dx,) = primals, tangents
    return log_total(x, axis), jnp.sum(softmax(x, axis) * dx, axis=axis)


@jax.custom_jvp
def surprise(x: Array, label: Array, at_label: Array) -> Array:
    """log sum e^x - x[label] over the last axis.

    Its derivative is softmax(x) - (1 at the label), in one pass and without a scatter.

    Args:
      x: (..., n).
      label: integers (...), from -n to n - 1; another label gives NaN.
      at_label: (..., n), the logits that x[label] is taken from; x, where no mask has touched it.
    """
    return log_total(x, -1) - jnp.squeeze(jnp.take_along_axis(at_label, label[..., None], axis=-1), -1)


@surprise.defjvp
def _slope_of_surprise(primals, tangents):
    (x, label, at_label), (dx, _, d_at_label) = primals, tangents
    picked = jnp.arange(x.shape[-1]) == jnp.where(label < 0, label + x.shape[-1], label)[..., None]
    change = jnp.sum(softmax(x, -1) * dx - jnp.where(picked, d_at_label, 0), axis=-1)
    return surprise(x, label, at_label), change


def _peak(x: Array, axis: Axes) -> Array:
    """The largest entry, or 0 where it is infinite: of minus infinities alone, the sum of powers is 0."""
    peak = jax.lax.stop_gradient(jnp.max(x, axis=axis, keepdims=True, initial=-jnp.inf))
    return jnp.where(jnp.isfinite(peak), peak, 0)

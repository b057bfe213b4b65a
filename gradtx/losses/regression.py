"""Losses of real numbers: squares, Huber's, log-cosh, and the angle between vectors."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import keep, loss, must_fit

Axes = int | tuple[int, ...] | None


@loss("predictions")
def squared_error(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """(p - t)^2, entry by entry.

    Args:
      predictions: floating, of any shape.
      targets: of the same shape: (n,) against (n, 1) is an error, not (n, n). None is 0.
    """
    if targets is not None:
        must_fit("squared_error", predictions=predictions, targets=targets)
    return jnp.square(_errors(predictions, targets))


@loss("predictions")
def l2_loss(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """(p - t)^2 / 2, entry by entry: its slope is p - t.

    Arguments: `squared_error`.
    """
    if targets is not None:
        must_fit("l2_loss", predictions=predictions, targets=targets)
    return 0.5 * jnp.square(_errors(predictions, targets))


@loss("predictions")
def huber_loss(predictions: ArrayLike, targets: ArrayLike | None = None, *, delta: ArrayLike = 1.0) -> Array:
    """Quadratic near the target, linear beyond delta; entry by entry. With e = p - t:

        |e| <= delta:  e^2 / 2
        else:          delta (|e| - delta / 2)

    Its slope is e clipped to [-delta, delta].

    Args:
      predictions: floating, of any shape.
      targets: of a shape that broadcasts with them. None is 0.
      delta: positive, in the unit of the predictions.

    Source: Huber, Robust estimation of a location parameter, 1964.
    """
    size = jnp.abs(_errors(predictions, targets))
    near = jnp.minimum(size, delta)
    return 0.5 * jnp.square(near) + delta * (size - near)


@loss("predictions")
def log_cosh(predictions: ArrayLike, targets: ArrayLike | None = None) -> Array:
    """log cosh(p - t), entry by entry: e^2 / 2 near 0, |e| - log 2 far from it, and smooth. Its slope is tanh(p - t).

    Args:
      predictions: floating, of any shape.
      targets: of a shape that broadcasts with them. None is 0.

    Optax's is a difference of numbers near log 2, and 0 where |e| < 3e-4 in float32; this one keeps its digits.

    Source: Chen et al., Log hyperbolic cosine loss improves variational auto-encoder, 2019.
    """
    return _log_cosh(_errors(predictions, targets))


@loss("predictions", "targets")
def cosine_similarity(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """The cosine of the angle between vectors:

        <p, t> / (max(|p|^2, epsilon) max(|t|^2, epsilon))^(1/2)

    It is 0, with slope 0, where a norm is 0 and epsilon too. Optax gives NaN there.

    Args:
      predictions, targets: floating, (..., n). They broadcast.
      epsilon: in [0, inf), a lower bound of the squared norms.
      axis: the axis or axes that make a vector; None: all.
      where: a mask of the entries that count. It broadcasts.
    """
    p, t = keep(predictions, where), keep(targets, where)
    return jnp.sum(unit(p, epsilon, axis) * unit(t, epsilon, axis), axis=axis)


@loss("predictions", "targets")
def cosine_distance(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    epsilon: ArrayLike = 0.0,
    axis: Axes = -1,
    where: ArrayLike | None = None,
) -> Array:
    """1 - `cosine_similarity`, of the same arguments: in [0, 2], and 1 where a vector is 0."""
    return 1.0 - cosine_similarity(predictions, targets, epsilon=epsilon, axis=axis, where=where)


def _errors(predictions: ArrayLike, targets: ArrayLike | None) -> Array:
    return jnp.asarray(predictions) if targets is None else jnp.subtract(predictions, targets)


@jax.custom_jvp
def _log_cosh(e: Array) -> Array:
    """Where |e| < 1 in the form log(1 + 2 sinh^2(e / 2)), which has no difference of nearby numbers."""
    size = jnp.abs(e)
    near = jnp.log1p(2 * jnp.square(jnp.sinh(0.5 * jnp.minimum(size, 1))))
    return jnp.where(size < 1, near, size + jnp.log1p(jnp.exp(-2 * size)) - jnp.log(2.0).astype(e.dtype))


_log_cosh.defjvps(lambda de, _, e: jnp.tanh(e) * de)


def unit(x: Array, epsilon: ArrayLike, axis: Axes) -> Array:
    """Vectors divided by their norms, the squares of which count as at least epsilon; 0 stays."""
    square = jnp.maximum(jnp.sum(jnp.square(x), axis=axis, keepdims=True), epsilon)
    return x * jnp.where(square > 0, 1 / jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

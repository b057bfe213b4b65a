"""Cross entropies: of softmax and of sigmoid, and what is made from them."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import keep, loss, must_be, times
from gradtx.losses.softmax import Axes, cross_entropy, log_softmax, masked, surprise


@loss("logits")
def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """The cross entropy of softmax(x) from a distribution y:

        -sum_j y_j log(e^(x_j) / sum_k e^(x_k))

    0 log 0 is 0: a logit of minus infinity excludes a class that has label 0, in the loss and in the gradient. (Optax's
    gives NaN.) With a label above 0 the loss is infinite.

    Args:
      logits: floating, (..., n).
      labels: not negative; of a shape that broadcasts with the logits. One-hot, or a distribution.
      axis: the axis or axes of the classes; None: all.
      where: a mask, of the classes that count, or without `axis`, of the examples. What is masked has no influence, and
        where all is masked the loss is 0.

    Integers as labels need less memory: `softmax_cross_entropy_with_integer_labels`.
    """
    x, mask = jnp.asarray(logits), _mask(where, logits, axis)
    x, y = jnp.broadcast_arrays(masked(x, mask, axis), keep(labels, mask).astype(x.dtype))
    return cross_entropy(x, y, axis)


@loss("logits")
def safe_softmax_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """`softmax_cross_entropy` over the last axis, which is as safe here."""
    return softmax_cross_entropy(logits, labels)


@loss("logits")
def softmax_cross_entropy_with_integer_labels(
    logits: ArrayLike, labels: ArrayLike, axis: int | tuple[int, ...] = -1, where: ArrayLike | None = None
) -> Array:
    """The cross entropy of softmax(x) from one class c:

        log sum_k e^(x_k) - x_c

    Its gradient takes one pass over the logits, and keeps nothing for it but the logits.

    Args:
      logits: floating, (..., n).
      labels: integers (...), from 0 to n - 1; -1 is the last class. Another label gives NaN.
      axis: the axis of the classes, or several, in whose order classes are counted.
      where: a mask, of the classes that count in the sum, or without `axis`, of the examples. Where all is masked the
        loss is 0, whatever the label.

    Raises:
      TypeError: labels that are no integers.
      ValueError: axis None.
    """
    name = "softmax_cross_entropy_with_integer_labels"
    must_be(jnp.integer, name, labels=labels)
    if not isinstance(axis, int | tuple):
        raise ValueError(f"`{name}`: axis must be an integer or a tuple of integers, got {axis!r}.")
    x, mask = jnp.asarray(logits), _mask(where, logits, axis)
    axes = axis if isinstance(axis, tuple) else (axis,)
    last = lambda array: jnp.moveaxis(array, axes, range(-len(axes), 0)).reshape(*_others(array, axes), -1)
    rows, mask = last(x), None if mask is None else last(jnp.broadcast_to(mask, x.shape))
    found = surprise(masked(rows, mask, -1), jnp.asarray(labels), rows)
    return found if mask is None else jnp.where(jnp.any(mask, axis=-1), found, 0)


@loss("logits")
def poly_loss_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, epsilon: ArrayLike = 2.0, axis: Axes = -1, where: ArrayLike | None = None
) -> Array:
    """Cross entropy with another weight of the first term of its series in 1 - p, "Poly-1":

        `softmax_cross_entropy` + epsilon sum_j y_j (1 - p_j),    p = softmax(x)

    Args:
      epsilon: at least -1. The paper has 2 for ImageNet, -1 for detection.
      Other arguments: `softmax_cross_entropy`; labels must be floating.

    Source: Leng et al., PolyLoss: a polynomial expansion perspective of classification loss functions, 2022
    (arXiv:2204.12511).
    """
    must_be(jnp.floating, "poly_loss_cross_entropy", labels=labels)
    x, mask = jnp.asarray(logits), _mask(where, logits, axis)
    log_p, weights = log_softmax(masked(x, mask, axis), axis), keep(labels, mask)
    return jnp.sum(weights * -jnp.expm1(log_p) * epsilon - times(weights, log_p), axis=axis)


@loss("logits", like="logits")
def sigmoid_binary_cross_entropy(logits: ArrayLike, labels: ArrayLike) -> Array:
    """The cross entropy of p = sigmoid(x) from y, entry by entry:

        -y log p - (1 - y) log(1 - p)

    Args:
      logits: floating, of any shape.
      labels: in [0, 1]; of a shape that broadcasts with the logits.
    """
    x, y = jnp.asarray(logits), _as_labels(labels, logits)
    return _sigmoid_cross_entropy(*jnp.broadcast_arrays(x, y))


@loss("logits", like="logits")
def sigmoid_focal_loss(
    logits: ArrayLike, labels: ArrayLike, *, alpha: ArrayLike | None = None, gamma: ArrayLike = 2.0
) -> Array:
    """`sigmoid_binary_cross_entropy` with less weight where the prediction is right already, entry by entry:

        weight_y (1 - p_y)^gamma loss,    1 - p_y = y (1 - p) + (1 - y) p,    weight_y = y alpha + (1 - y) (1 - alpha)

    The power is taken of the logarithm, so that it is exact, and has a slope, where 1 - p_y is very small.

    Args:
      logits: floating, of any shape.
      labels: in [0, 1]; of a shape that broadcasts with the logits.
      alpha: in [0, 1], the weight of label 1; None: both labels have weight 1.
      gamma: at least 0; 0 is the cross entropy.

    Source: Lin et al., Focal loss for dense object detection, 2017 (arXiv:1708.02002).
    """
    x, y = jnp.asarray(logits), _as_labels(labels, logits)
    log_p, log_q = -jax.nn.softplus(-x), -jax.nn.softplus(x)
    soft = jnp.where((y > 0) & (y < 1), y, 0.5)
    log_wrong = jnp.logaddexp(jnp.log(soft) + log_q, jnp.log1p(-soft) + log_p)
    log_wrong = jnp.where(y <= 0, log_p, jnp.where(y >= 1, log_q, log_wrong))
    found = sigmoid_binary_cross_entropy(x, y) * jnp.exp(gamma * log_wrong)
    return found if alpha is None else (jnp.multiply(alpha, y) + jnp.subtract(1, alpha) * (1 - y)) * found


@loss("x")
def weighted_logsoftmax(x: ArrayLike, weights: ArrayLike) -> Array:
    """w_j log softmax(x)_j over the last axis; 0 where the weight is 0, also where x is minus infinity."""
    return times(weights, log_softmax(jnp.asarray(x), -1))


@jax.custom_jvp
def _sigmoid_cross_entropy(x: Array, y: Array) -> Array:
    """log(1 + e^-|x|) + |x| (the label that the sign of x denies). Its slope is written out: |x| has none at 0."""
    size, denied = jnp.abs(x), jnp.where(x > 0, 1 - y, y)
    return jnp.log1p(jnp.exp(-size)) + jnp.where(denied == 0, 0, denied * size)


@_sigmoid_cross_entropy.defjvp
def _slope_of_sigmoid_cross_entropy(primals, tangents):
    (x, y), (dx, dy) = primals, tangents
    change = ((1 - y) * jax.nn.sigmoid(x) - y * jax.nn.sigmoid(-x)) * dx  # exact also where p is next to y
    return _sigmoid_cross_entropy(x, y), change - jnp.where(jnp.isinf(x), 0, x) * dy


def _as_labels(labels: ArrayLike, logits: ArrayLike) -> Array:
    return jnp.asarray(labels).astype(jnp.result_type(logits))


def _mask(where: ArrayLike | None, logits: ArrayLike, axis: Axes) -> Array | None:
    """The mask with as many dimensions as the logits: one of examples lacks the axes of classes."""
    if where is None:
        return None
    mask = jnp.asarray(where).astype(bool)
    return mask if mask.ndim == jnp.ndim(logits) or axis is None else jnp.expand_dims(mask, axis)


def _others(x: Array, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The sizes of the axes that are not named."""
    named = {axis % x.ndim for axis in axes}
    return tuple(size for i, size in enumerate(x.shape) if i not in named)

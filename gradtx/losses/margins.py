"""Losses of scores that ask for a margin, or for the right order alone: hinge, perceptron, sparsemax."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.linalg import simplex
from gradtx.losses.arguments import loss, must_fit, times


@loss()
def hinge_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """max(0, 1 - s t), entry by entry: 0 where the score has the right sign and a margin of 1.

    Args:
      predictor_outputs: scores s, of any shape.
      targets: -1 or 1 (not 0); of a shape that broadcasts with the scores.

    Source: Cortes and Vapnik, Support-vector networks, 1995.
    """
    return jnp.maximum(0, 1 - jnp.multiply(predictor_outputs, targets))


@loss()
def perceptron_loss(predictor_outputs: ArrayLike, targets: ArrayLike) -> Array:
    """max(0, -s t), entry by entry: 0 where the score has the right sign.

    Args:
      predictor_outputs: scores s, of any shape.
      targets: -1 or 1 (not 0), of the same shape.

    Source: Rosenblatt, The perceptron, 1958.
    """
    must_fit("perceptron_loss", predictor_outputs=predictor_outputs, targets=targets)
    return jnp.maximum(0, -jnp.multiply(predictor_outputs, targets))


@loss()
def sparsemax_loss(logits: ArrayLike, labels: ArrayLike) -> Array:
    """The binary sparsemax loss, entry by entry. With s = x for label 0 and -x for label 1:

        0 where s <= -1,    (s + 1)^2 / 4 where -1 < s < 1,    s where 1 <= s

    Args:
      logits: scores x, of any shape.
      labels: 0 or 1 (or False, True); of a shape that broadcasts with the scores.

    Source: Blondel, Martins and Niculae, Learning with Fenchel-Young losses, 2020 (arXiv:1901.02324), section 4.4.
    """
    return jax.nn.sparse_plus(jnp.where(jnp.asarray(labels) != 0, -jnp.asarray(logits), logits))


@loss()
def multiclass_hinge_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """max_j (s_j + [j is not c]) - s_c: 0 where the score of the right class c is the largest with a margin of 1.

    Args:
      scores: (..., n).
      labels: integers (...), from 0 to n - 1.

    Source: Crammer and Singer, On the algorithmic implementation of multiclass kernel-based vector machines, 2001.
    """
    scores, right = _classes(scores, labels)
    return jnp.max(jnp.where(right, scores, scores + 1), axis=-1) - _of(right, scores)


@loss()
def multiclass_perceptron_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """max_j s_j - s_c: 0 where the score of the right class c is the largest.

    Arguments: `multiclass_hinge_loss`.

    Source: Collins, Discriminative training methods for hidden Markov models, 2002.
    """
    scores, right = _classes(scores, labels)
    return jnp.max(scores, axis=-1) - _of(right, scores)


@loss("scores")
def multiclass_sparsemax_loss(scores: ArrayLike, labels: ArrayLike) -> Array:
    """The sparsemax loss. With p = sparsemax(s), the nearest distribution to the scores:

        <p, s> - s_c + (1 - |p|^2) / 2

    It is 0 where the score of the right class c is the largest with a margin of 1. Its slope is p - (1 at c).

    Args:
      scores: floating, (..., n); minus infinity excludes a class.
      labels: integers (...), from 0 to n - 1.

    Source: Martins and Astudillo, From softmax to sparsemax, 2016 (arXiv:1602.02068).
    """
    scores, right = _classes(scores, labels)
    p = jnp.vectorize(lambda row: simplex.project([row], 1.0)[0], signature="(n)->(n)")(scores)
    lead = jnp.where(right, 0, scores - _of(right, scores)[..., None])
    return jnp.sum(times(p, lead), axis=-1) + 0.5 * (1 - jnp.sum(jnp.square(p), axis=-1))


def _classes(scores: ArrayLike, labels: ArrayLike) -> tuple[Array, Array]:
    """The scores, and where the right class is."""
    scores = jnp.asarray(scores)
    return scores, jnp.arange(scores.shape[-1]) == jnp.asarray(labels)[..., None]


def _of(right: Array, scores: Array) -> Array:
    return jnp.sum(jnp.where(right, scores, 0), axis=-1)

"""Losses of embeddings, by which of them belong together."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import loss
from gradtx.losses.regression import unit
from gradtx.losses.softmax import log_total, masked


@loss("embeddings")
def ntxent(embeddings: ArrayLike, labels: ArrayLike, temperature: ArrayLike = 0.07) -> Array:
    """The normalized temperature-scaled cross entropy: the mean over pairs i, j of one label of

        log(e^(s_ij) + sum e^(s_ik)) - s_ij,    s = cosine / temperature,    k: of other labels than i

    0 if no two have one label. The cosines are one product of matrices, (batch, batch), in full precision.

    Args:
      embeddings: floating, (batch, n). Squared norms count as at least the machine epsilon.
      labels: integers (batch): equal for what belongs together.
      temperature: positive.

    Source: Chen et al., A simple framework for contrastive learning of visual representations, 2020 (arXiv:2002.05709).

    Raises:
      ValueError: labels and embeddings of different length.
    """
    x, labels = jnp.asarray(embeddings), jnp.asarray(labels)
    if labels.shape[:1] != x.shape[:1]:
        raise ValueError(
            f"`ntxent`: labels and embeddings must have the same leading dimension, got {labels.shape} and {x.shape}."
        )
    unit_x = unit(x, jnp.finfo(x.dtype).eps, -1)
    similarity = jnp.matmul(unit_x, unit_x.T, precision="highest") / temperature
    same = labels[:, None] == labels[None, :]
    pairs = same & ~jnp.eye(len(labels), dtype=bool)
    others = jnp.where(jnp.any(~same, axis=1), log_total(masked(similarity, ~same, 1), 1), -jnp.inf)
    found = jnp.where(pairs, jax.nn.softplus(others[:, None] - similarity), 0)
    return jnp.sum(found) / jnp.maximum(jnp.sum(pairs), 1)


@loss("anchors", "positives", "negatives")
def triplet_margin_loss(
    anchors: ArrayLike,
    positives: ArrayLike,
    negatives: ArrayLike,
    axis: int = -1,
    norm_degree: ArrayLike = 2,
    margin: ArrayLike = 1.0,
    eps: ArrayLike = 1e-6,
) -> Array:
    """max(0, d(a, p) - d(a, n) + margin), for each triplet:

        d(x, y) = (sum |x - y|^norm_degree + eps)^(1 / norm_degree)

    Optax has no absolute value: its distance is wrong, or NaN, for an odd degree.

    Args:
      anchors, positives, negatives: floating, (..., n). They broadcast.
      axis: the axis or axes of one embedding.
      norm_degree: at least 1.
      margin: not negative, in the unit of d.
      eps: not negative. With 0 the slope of a distance of 0 is 0.

    Source: Balntas et al., Learning shallow convolutional feature descriptors with triplet losses, 2016.
    """

    def distance(x: ArrayLike) -> Array:
        total = jnp.sum(jnp.power(jnp.abs(anchors - jnp.asarray(x)), norm_degree), axis=axis) + eps
        return jnp.where(total > 0, jnp.power(jnp.where(total > 0, total, 1), 1 / norm_degree), total)

    return jnp.maximum(distance(positives) - distance(negatives) + margin, 0)

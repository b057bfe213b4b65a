"""Overlap of regions: Dice's coefficient, one for each class."""

import jax
import jax.core
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx.losses.arguments import loss, must_fit, must_have_rank

REDUCTIONS = {"mean": jnp.mean, "sum": jnp.sum, "none": None}


@loss()
def dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    class_weights: ArrayLike | None = None,
    smooth: ArrayLike = 1.0,
    alpha: ArrayLike = 0.5,
    beta: ArrayLike = 0.5,
    apply_softmax: bool = True,
    reduction: str = "mean",
    ignore_background: bool = False,
    axis: int | tuple[int, ...] | None = None,
) -> Array:
    """1 - overlap / size of each class's region, then the mean over classes. With sums over the entries of an example:

        common = sum p t
        loss = 1 - (common + smooth) / (common + alpha (sum p - common) + beta (sum t - common) + smooth)

    alpha = beta = 1/2 is Dice's loss; others are Tversky's. Where a class is absent, and predicted so, the loss is 0.

    Args:
      predictions: logits, (batch, ..., classes); one class, or no axis of classes, is a binary mask.
      targets: one-hot, or a mask of 0 and 1, of the same shape. Either may lack a last axis of one class.
      class_weights: (classes), not negative, factors of the classes' losses; None: 1.
      smooth: not negative, in entries.
      alpha: not negative, the weight of what is predicted wrongly.
      beta: not negative, the weight of what is missed.
      apply_softmax: False if predictions are probabilities. Softmax is a sigmoid where there is one class.
      reduction: of the classes, "mean", "sum" or "none".
      ignore_background: leave out the first of several classes.
      axis: what to sum over; None: all but the first axis and the last.

    Raises:
      ValueError: shapes that differ; an unknown reduction; where the values are known, probabilities that do not sum
        to 1 over several classes, or lie outside of [0, 1] for one.

    Source: Milletari et al., V-Net, 2016 (arXiv:1606.04797); Salehi et al., Tversky loss function for image
    segmentation using 3D fully convolutional deep networks, 2017 (arXiv:1706.05721).
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"`dice_loss`: reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
    p, t = jnp.asarray(predictions), jnp.asarray(targets)
    if p.ndim == t.ndim - 1:
        p = p[..., None]
    if t.ndim == p.ndim - 1:
        t = t[..., None]
    must_fit("dice_loss", predictions=p, targets=t)
    if apply_softmax:
        p = jax.nn.sigmoid(p) if p.shape[-1] == 1 else jax.nn.softmax(p, axis=-1)
    else:
        _must_be_probabilities(p)
    axes = tuple(range(1, p.ndim - 1)) if axis is None else axis
    common, predicted, true = (jnp.sum(x, axis=axes) for x in (p * t, p, t))
    size = common + alpha * (predicted - common) + beta * (true - common) + smooth
    found = 1 - jnp.where(size == 0, 1, (common + smooth) / jnp.where(size == 0, 1, size))
    if class_weights is not None:
        must_have_rank(1, "dice_loss", class_weights=class_weights)
        found = found * class_weights
    if ignore_background and p.shape[-1] > 1:
        found = found[..., 1:]
    reduce = REDUCTIONS[reduction]
    return found if reduce is None else reduce(found, axis=-1)


@loss()
def multiclass_generalized_dice_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    smooth: ArrayLike = 1.0,
    apply_softmax: bool = True,
    ignore_background: bool = False,
) -> Array:
    """The mean `dice_loss` over classes and examples, with class weights that rare classes have more of:

        w_c = 1 / (n_c^2 + 1e-7), scaled to mean 1,    n_c = the entries of class c in the batch

    A class that the batch has no entry of gets almost all the weight; so have every class in a batch.

    Arguments: `dice_loss`.

    Source: Sudre et al., Generalised Dice overlap as a deep learning loss function for highly unbalanced segmentations,
    2017 (arXiv:1707.03237).
    """
    must_fit("multiclass_generalized_dice_loss", predictions=predictions, targets=targets)
    t = jnp.asarray(targets)
    counts = jnp.sum(t, axis=tuple(range(t.ndim - 1))).astype(jnp.result_type(predictions))
    weights = 1 / (jnp.square(counts) + 1e-7)
    found = dice_loss(
        predictions,
        targets,
        class_weights=weights / jnp.mean(weights),
        smooth=smooth,
        apply_softmax=apply_softmax,
        reduction="none",
        ignore_background=ignore_background,
    )
    return jnp.mean(found)


@loss()
def binary_dice_loss(
    predictions: ArrayLike, targets: ArrayLike, *, smooth: ArrayLike = 1.0, apply_sigmoid: bool = True
) -> Array:
    """`dice_loss` of a binary mask, one number for each example.

    Args:
      predictions: logits, (batch, ...) or (batch, ..., 1).
      targets: 0 or 1, of the same shape.
      smooth: as in `dice_loss`.
      apply_sigmoid: False if predictions are probabilities. (Optax's then wants each of them to be 1.)
    """
    p, t = jnp.asarray(predictions), jnp.asarray(targets)
    if p.ndim == t.ndim and p.shape[-1] != 1:
        p, t = p[..., None], t[..., None]
    return dice_loss(p, t, smooth=smooth, apply_softmax=apply_sigmoid)


def _must_be_probabilities(p: Array) -> None:
    """Checks values, where they are known: not while a step is traced."""
    if isinstance(p, jax.core.Tracer):
        return
    several = p.shape[-1] > 1
    found = jnp.sum(p, axis=-1) if several else p
    # a sum of bfloat16 numbers is right to 0.4 %
    right = jnp.allclose(found, 1.0, rtol=4e-3) if several else jnp.all((found >= 0) & (found <= 1))
    if not right:
        wanted = "valid probability distributions that sum to 1" if several else "probabilities in [0, 1]"
        raise ValueError(
            f"`dice_loss`: without a softmax, predictions must be {wanted}, got {jnp.min(found)} to {jnp.max(found)}."
        )

"""Connectionist temporal classification: sequences of labels without their times."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise
from gradtx.losses.arguments import keep, must_fit, must_have_rank
from gradtx.losses.softmax import log_softmax


def ctc_loss(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> Array:
    """-log of the probability of the labels, over all ways to place them in time; one number for each sequence.

    A way is a class for each frame. Equal neighbours are one label, then blanks are dropped: "aa-ab" reads "aab".

    Args:
      logits: floating, (batch, frames, classes).
      logit_paddings: (batch, frames), 1 where a frame is padding, else 0; or booleans.
      labels: integers (batch, n). A class that does not exist gives NaN.
      label_paddings: (batch, n), 1 where a label is padding, else 0; padding stands at the end of a row.
      blank_id: the class of the blank.
      log_epsilon: stands for log 0: finite, and far below any sum of log-probabilities. Labels too many for their
        frames have a loss of about its size.

    Computed in float32 or wider. What is padded has no influence, not even if it is NaN.

    Raises:
      ValueError: shapes that do not fit.

    Source: Graves et al., Connectionist temporal classification, 2006.
    """
    return _ctc("ctc_loss", logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)[0]


def ctc_loss_with_forward_probs(
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    *,
    blank_id: int = 0,
    log_epsilon: ArrayLike = -1e5,
) -> tuple[Array, Array, Array]:
    """`ctc_loss`, and the logarithms of the forward probabilities: (loss, at blanks, at labels).

    They are (frames, batch, n + 1) and (frames, batch, n): of having read the first 0, 1, ..., n labels by that frame
    and standing at a blank; or the first 1, ..., n, and standing at the last of them. In the last frame the first array
    has both, whatever one stands at, so that the loss is in it.

    Arguments: `ctc_loss`.
    """
    name = "ctc_loss_with_forward_probs"
    return _ctc(name, logits, logit_paddings, labels, label_paddings, blank_id, log_epsilon)


def _ctc(
    name: str,
    logits: ArrayLike,
    logit_paddings: ArrayLike,
    labels: ArrayLike,
    label_paddings: ArrayLike,
    blank_id: int,
    log_epsilon: ArrayLike,
) -> tuple[Array, Array, Array]:
    must_have_rank(3, name, logits=logits)
    must_have_rank(2, name, labels=labels)
    must_fit(name, labels=labels, label_paddings=label_paddings)
    x, y = leafwise.widen(jnp.asarray(logits)), jnp.asarray(labels)
    if x.shape[:2] != jnp.shape(logit_paddings):
        raise ValueError(
            f"`{name}`: logit_paddings must have shape {x.shape[:2]}, as logits {x.shape} say, got "
            f"{jnp.shape(logit_paddings)}."
        )
    if len(y) != len(x):
        raise ValueError(f"`{name}`: labels must have batch size {len(x)}, as logits, got {len(y)}.")
    padded_frames, padded_labels = jnp.asarray(logit_paddings) != 0, jnp.asarray(label_paddings) != 0
    log_p = log_softmax(keep(x, ~padded_frames[..., None]), -1)
    repeated = jnp.pad(y[:, :-1] == y[:, 1:], ((0, 0), (0, 1)))  # by the next label: a blank must stand between them
    classes = x.shape[-1]
    y = jnp.where(padded_labels, jnp.clip(y, 0, classes - 1), jnp.where(y < 0, classes, y))
    of_labels = jnp.take_along_axis(log_p, y[:, None, :], axis=-1, mode="fill")  # (batch, frames, n)

    def join(blank: Array, label: Array) -> Array:
        """After label n stands blank n + 1."""
        return jnp.concatenate([blank[:, :1], jnp.logaddexp(blank[:, 1:], label)], axis=1)

    def frame(state: tuple[Array, Array], inputs: tuple[Array, Array, Array]):
        blank, label = state
        log_label, log_blank, padded = inputs
        ready = join(blank, jnp.where(repeated, label + log_epsilon, label))  # to read the next label now
        next_label = jnp.logaddexp(ready[:, :-1] + log_label, label + log_label)
        ended = label + log_blank  # a blank after a repeated label; after others, `ready` has counted it
        next_blank = join(ready + log_blank, jnp.where(repeated, ended, ended + log_epsilon))
        state = jnp.where(padded[:, None], blank, next_blank), jnp.where(padded[:, None], label, next_label)
        return state, state

    start = jnp.full((len(y), y.shape[1] + 1), log_epsilon, log_p.dtype)
    inputs = of_labels, log_p[..., blank_id : blank_id + 1], padded_frames
    by_frame: Any = tuple(jnp.moveaxis(x, 1, 0) for x in inputs)
    last, (at_blanks, at_labels) = jax.lax.scan(frame, (start.at[:, 0].set(0), start[:, 1:]), by_frame)
    last = join(*last)
    read = jnp.sum(~padded_labels, axis=1, keepdims=True)
    loss = -jnp.squeeze(jnp.take_along_axis(last, read, axis=1), 1)
    return loss, at_blanks.at[-1].set(last), at_labels

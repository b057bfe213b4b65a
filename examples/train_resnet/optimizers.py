"""What the program compares: optimizers and schedules, and the transformations that they are."""

from dataclasses import dataclass

import gradtx
from gradtx import GradientTransformation, Hyperparameter

OPTIMIZERS = {"sgd": "SGD with momentum", "adam": "Adam", "adamw": "AdamW"}
SCHEDULES = {"warmup_cosine": "linear warmup, then cosine annealing to 0", "constant": "constant"}
DECAYED = "kernel$"  # the weights of convolutions and of the last layer, not biases nor normalization


@dataclass(frozen=True)
class Trial:
    """One run of the comparison.

    Attributes:
      optimizer: a key of `OPTIMIZERS`.
      schedule: a key of `SCHEDULES`.
      rate: the learning rate; with a schedule, its peak.
    """

    optimizer: str
    schedule: str
    rate: float


@dataclass(frozen=True)
class Regularization:
    """How strongly weights are pulled to zero.

    Attributes:
      l2: lambda of L2 regularization, whose gradient lambda p is added to SGD's gradient.
      weight_decay: AdamW's decoupled decay; an update multiplies weights by 1 - learning rate * weight_decay.
    """

    l2: float
    weight_decay: float


def learning_rate(trial: Trial, *, warmup_steps: int, total_steps: int) -> Hyperparameter:
    """The trial's learning rate: a schedule, or a number.

    Args:
      trial: schedule and rate.
      warmup_steps: steps of linear warmup.
      total_steps: steps of training, warmup included.
    """
    match trial.schedule:
        case "warmup_cosine":
            return gradtx.warmup_cosine_decay_schedule(0.0, trial.rate, warmup_steps, total_steps)
        case "constant":
            return trial.rate
    raise ValueError(f"unknown schedule {trial.schedule!r}, expected one of {list(SCHEDULES)}")


def build(optimizer: str, rate: Hyperparameter, regularization: Regularization) -> GradientTransformation:
    """A transformation of the comparison.

    For one optimizer and schedule, the transformations of all rates have the same structure and differ in the values
    of their leaves alone; so a training step that takes the transformation as an argument is compiled once for all.

    Args:
      optimizer: a key of `OPTIMIZERS`.
      rate: learning rate.
      regularization: for SGD and AdamW; Adam has none.
    """
    match optimizer:
        case "sgd":
            decay = gradtx.add_decayed_weights(regularization.l2, mask=DECAYED)
            return gradtx.chain(decay, gradtx.sgd(rate, momentum=0.9))
        case "adam":
            return gradtx.adam(rate)
        case "adamw":
            return gradtx.adamw(rate, weight_decay=regularization.weight_decay, mask=DECAYED)
    raise ValueError(f"unknown optimizer {optimizer!r}, expected one of {list(OPTIMIZERS)}")

"""Gradient descent with momentum, in the forms in which textbooks write it."""

from typing import Literal

from jax.typing import DTypeLike

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms.momentum import ema, trace
from gradtx.transforms.scale import scale_by_learning_rate


def momentum(
    learning_rate: Hyperparameter,
    decay: Hyperparameter = 0.9,
    *,
    form: Literal["heavy_ball", "velocity", "averaged", "unbiased"] = "heavy_ball",
    nesterov: bool = False,
    accumulator_dtype: DTypeLike | None = None,
) -> GradientTransformation:
    """Steps against an average of the gradients.

        heavy_ball   v = decay v + g;                    p <- p - learning_rate v         (`sgd`, PyTorch)
        velocity     v = decay v + learning_rate g;      p <- p - v
        averaged     u = decay u + (1 - decay) g;        p <- p - learning_rate u
        unbiased     u = decay u + (1 - decay) g;        p <- p - learning_rate u / (1 - decay^t)

    With a constant learning rate the first two are one method; when the rate changes, the velocity keeps the rates
    that its gradients came with. The last two take steps 1 - decay times as long.

    Args:
      learning_rate: in units of the parameters per unit of gradient.
      decay: in [0, 1).
      form: see above.
      nesterov: look one step ahead; for the first two forms.
      accumulator_dtype: storage of the average; None means float32 or wider.

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Source: Polyak 1964 (heavy ball, velocity); Kingma, Ba, Adam, 2015, section 3 (removing the bias).
    """
    if nesterov and form in ("averaged", "unbiased"):
        raise ValueError(f"`momentum`: nesterov is for the forms heavy_ball and velocity, got form={form!r}.")
    rate = scale_by_learning_rate(learning_rate)
    match form:
        case "heavy_ball":
            return chain(trace(decay, nesterov, accumulator_dtype), rate)
        case "velocity":
            return chain(rate, trace(decay, nesterov, accumulator_dtype))
        case "averaged" | "unbiased":
            return chain(ema(decay, form == "unbiased", accumulator_dtype), rate)
        case _:
            raise ValueError(f"`momentum`: form must be heavy_ball, velocity, averaged or unbiased, got {form!r}.")

"""AggMo (Lucas et al., 2019): the mean of several momenta, so that a long one can be damped by short ones."""

from typing import Any, NamedTuple

import jax
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import known, number, part, state

BETAS = (0.0, 0.9, 0.99)


def _as_betas(owner: str, name: str, betas: Any) -> tuple[Any, ...]:
    if hasattr(betas, "ndim"):
        betas = jax.device_get(betas).tolist() if known(betas) and betas.ndim == 1 else betas
    if not isinstance(betas, (tuple, list)) or not betas:
        raise TypeError(f"`{owner}`: {name} must be a tuple of decays such as {BETAS}, got {betas!r}.")
    convert = number(within="[0, 1)").metadata["convert"]
    return tuple(convert(owner, f"{name}[{i}]", beta) for i, beta in enumerate(betas))


@state
class AggmoState(NamedTuple):
    """State of `aggmo`."""

    count: Array  # int32 scalar: updates made so far
    traces: Means  # for each decay the decayed sum of g, float32 or wider


@transformation
class aggregated_trace(GradientTransformation):
    """Replaces the updates by the mean of their decayed sums with several decays: aggregated momentum.

        v_i = beta_i v_i + g                        for each of the K decays
        u = (v_1 + ... + v_K) / K

    A long memory speeds up along flat directions, and oscillates along steep ones; the short ones damp that. With one
    decay it is `trace`.

    Args:
      betas: the decays, each in [0, 1): numbers or schedules. The paper's are 1 - 0.1^i for i = 0, ..., K - 1.

    State: 4 bytes per float32 parameter and decay. Reads: updates only.
    Source: Lucas, Sun, Zemel, Grosse, Aggregated momentum: stability through passive damping, ICLR 2019, equation 3
      (arXiv:1804.00325).
    """

    betas: tuple[Hyperparameter, ...] = part(default=BETAS, convert=_as_betas)

    def init(self, params):
        return AggmoState(start(), tuple(leafwise.zeros(params) for _ in self.betas))

    def update(self, updates, state, params=None, **extra):
        betas = at(state.count, *self.betas)

        def leaf(g, *traces):
            traces = [beta * v + g for beta, v in zip(betas, traces, strict=True)]
            return sum(traces[1:], traces[0]) * (1 / len(betas)), *traces

        updates, *traces = leafwise.unzip_map(leaf, updates, *state.traces, outputs=1 + len(betas))
        return updates, AggmoState(tick(state.count), tuple(traces))


def aggmo(learning_rate: Hyperparameter, betas: tuple[Hyperparameter, ...] = BETAS) -> GradientTransformation:
    """Gradient descent with the mean of several momenta. Other arguments: `aggregated_trace`.

        p <- p - learning_rate (v_1 + ... + v_K) / K

    Args:
      learning_rate: in units of the parameters per unit of gradient.
    """
    return chain(aggregated_trace(betas), scale_by_learning_rate(learning_rate))

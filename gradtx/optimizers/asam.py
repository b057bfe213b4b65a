"""ASAM (Kwon et al., 2021): sharpness-aware minimization that does not depend on the scale of the weights."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.collectives import Axis
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.optimizers.sam import sam
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.normalize_adaptive import normalize_adaptive


def asam(
    optimizer: GradientTransformation,
    rho: Hyperparameter = 0.5,
    eta: Hyperparameter = 0.01,
    eps: Hyperparameter = 0.0,
    *,
    mask: Any = None,
    sync_period: int = 2,
    opaque_mode: bool = False,
    batch_axis_name: Any = None,
    axis: Axis = None,
) -> GradientTransformation:
    """Steps down with the gradient taken where a step uphill leads that is in proportion to each parameter. Other
    arguments: `sam`, `normalize_adaptive`.

        q = p + rho T^2 g / |T g|,      T = |p| + eta
        u = step of `optimizer` at (g(q), p)

    Args:
      optimizer: steps down.
      rho: of the step uphill, in units of the parameters' own sizes: 0.5 to 2, where `sam` has 0.05. A schedule is read
        at the number of steps uphill.
      mask: of which leaves T is so; of the others it is 1. The authors take the weights, not the biases.

    State: that of `sam`. Reads: what `sam` reads.
    Source: Kwon, Kim, Park, Choi, ASAM, ICML 2021, Algorithm 1 (arXiv:2102.11600).
    """
    uphill = chain(normalize_adaptive(eta, eps, mask=mask, axis=axis), sgd(rho))
    return sam(optimizer, uphill, sync_period, False, opaque_mode, batch_axis_name)

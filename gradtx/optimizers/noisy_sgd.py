"""SGD with noise that fades (Neelakantan et al., 2015)."""

from typing import Any

from gradtx.clock import Hyperparameter
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation
from gradtx.transforms.noise import add_noise
from gradtx.transforms.scale import scale_by_learning_rate


def noisy_sgd(
    learning_rate: Hyperparameter,
    eta: Hyperparameter = 0.01,
    gamma: Hyperparameter = 0.55,
    key: Any = None,
    *,
    seed: Any = None,
) -> GradientTransformation:
    """Steps against the gradient with Gaussian noise added to it. Other arguments: `add_noise`.

        p <- p - learning_rate (g + n),    n ~ N(0, eta / (1 + t)^gamma),    t = 0 at the first update

    Args:
      learning_rate: in units of the parameters per unit of gradient.
      key: an int, or a key of `jax.random`; to be given, since two runs with one key see the same noise.

    State: the time. Reads: gradients only.
    Source: Neelakantan et al., Adding gradient noise improves learning for very deep networks, 2015 (arXiv:1511.06807).
    """
    return chain(add_noise(eta, gamma, key, seed=seed), scale_by_learning_rate(learning_rate))

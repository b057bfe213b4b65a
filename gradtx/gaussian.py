"""A Gaussian with a diagonal covariance, under Optax's name: for evolution strategies and noise."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike


class MultiNormalDiagFromLogScale:
    """A Gaussian of independent entries, given by its mean and the logarithm of its deviations.

    Args:
      loc: the mean.
      log_scale: log of the standard deviation. Both are broadcast together.

    Raises:
      ValueError: the shapes cannot be broadcast together.
    """

    def __init__(self, loc: ArrayLike, log_scale: ArrayLike) -> None:
        self._loc, self._log_scale = jnp.asarray(loc), jnp.asarray(log_scale)
        self._param_shape = jnp.broadcast_shapes(self._loc.shape, self._log_scale.shape)

    def sample(self, shape: Sequence[int], key: Any) -> Array:
        """Independent draws: an array of `shape` and the parameters' shape.

        Args:
          shape: how many.
          key: of `jax.random`.
        """
        noise = jax.random.normal(key, (*shape, *self._param_shape), self._loc.dtype)
        return self._loc + noise * jnp.exp(self._log_scale)

    def log_prob(self, x: ArrayLike) -> Array:
        """The logarithm of the density at x: summed over the parameters' dimensions, one number per draw."""
        z = (x - self._loc) * jnp.exp(-self._log_scale)
        each = -(z**2) / 2 - self._log_scale - jnp.log(2 * jnp.pi) / 2
        return jnp.sum(each, axis=tuple(range(each.ndim - len(self._param_shape), each.ndim)))

    @property
    def log_scale(self) -> Array:
        """The logarithm of the standard deviation."""
        return self._log_scale

    @property
    def params(self) -> list[Array]:
        """The mean and the logarithm of the standard deviation."""
        return [self._loc, self._log_scale]


def multi_normal(loc: ArrayLike, log_scale: ArrayLike) -> MultiNormalDiagFromLogScale:
    """A Gaussian of independent entries with mean `loc` and deviations exp(log_scale); see its class."""
    return MultiNormalDiagFromLogScale(loc, log_scale)

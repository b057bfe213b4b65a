"""What stands in the place of a number to be searched: distributions."""

import math
from collections.abc import Iterable
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from gradtx.value import Value, part, value


class Distribution(Value):
    """A hyperparameter to be searched: where its values come from.

    It stands where a number would, `adamw(log_uniform(1e-4, 1e-1))`, or anywhere in a pytree,
    `{"tx": sgd(choice([0.1, 1.0])), "seed": choice(range(5))}`. What holds distributions is a *search space*: a value
    that prints as the code that builds it, and whose leaves are the numbers of its distributions. It cannot train;
    `grid` and `random` draw from it *members*, which can. One distribution in two places is two hyperparameters.
    """

    discrete: ClassVar[bool] = False  # whether `support` holds every value, not two bounds

    @property
    def support(self) -> tuple:
        """The two bounds, both included, or all values."""
        raise TypeError(f"`{type(self).__name__}` has no `support`: write one in the class.")

    def sample(self, key: Array, shape: tuple[int, ...] = ()) -> Array:
        """Independent draws.

        Args:
          key: a key of `jax.random`.
          shape: of the result.
        """
        raise TypeError(f"`{type(self).__name__}` has no `sample`: write one in the class.")

    def perturb(self, key: Array, x: Array, factors: tuple[float, ...] = (0.8, 1.2)) -> Array:
        """Each of the values `x` times a factor drawn uniformly from `factors`, kept within the support."""
        factor = jax.random.choice(key, jnp.asarray(factors, _floating()), jnp.shape(x))
        return jnp.clip(x * factor, *self.support)

    def suggest(self, trial: Any, name: str) -> float | int:
        """The value that an Optuna trial suggests under this name."""
        raise TypeError(f"`{type(self).__name__}` has no `suggest`: write one in the class.")

    def __call__(self, count: ArrayLike) -> NoReturn:
        """Refuses: it passes where a schedule passes, but has no value at a step."""
        raise TypeError(
            f"{self!r} has no value yet: a search space is not an optimizer. Draw its members first, with "
            "`tuning.random(key, space, n)` or `tuning.grid(space)`, and train those."
        )


def _bound(owner: str, name: str, x: Any) -> float:
    return float(_finite(owner, name, x))


@value
class uniform(Distribution):
    """Every value between two bounds is equally likely.

    Args:
      low: the smallest value, finite.
      high: the largest value, finite, more than `low`.
    """

    low: float = part(convert=_bound)
    high: float = part(convert=_bound)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError(f"`{type(self).__name__}`: low must be below high, got low={self.low}, high={self.high}.")

    @property
    def support(self) -> tuple:
        return self.low, self.high

    def sample(self, key, shape=()):
        x = jax.random.uniform(key, shape, _floating(), self.low, self.high)
        return jnp.clip(x, self.low, self.high)  # rounding may pass a bound

    def suggest(self, trial, name):
        return trial.suggest_float(name, self.low, self.high)


@value
class log_uniform(uniform):
    """Every order of magnitude between two bounds is equally likely: the logarithm is uniform.

    Args:
      low: the smallest value, positive.
      high: the largest value, finite, more than `low`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low < float(jnp.finfo(_floating()).tiny):
            raise ValueError(f"`log_uniform`: low must be positive, and not subnormal, got {self.low}.")

    def sample(self, key, shape=()):
        low, high = jnp.log(jnp.asarray(self.low, _floating())), jnp.log(jnp.asarray(self.high, _floating()))
        return jnp.clip(jnp.exp(jax.random.uniform(key, shape, _floating(), low, high)), self.low, self.high)

    def suggest(self, trial, name):
        return trial.suggest_float(name, self.low, self.high, log=True)


def _distinct_numbers(owner: str, name: str, values: Any) -> tuple:
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes, dict)):
        raise TypeError(f"`{owner}`: {name} must be a sequence of numbers, got {values!r}.")
    numbers = [_finite(owner, f"{name}[{i}]", x) for i, x in enumerate(values)]
    if not numbers:
        raise ValueError(f"`{owner}`: {name} is empty: give at least one number.")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"`{owner}`: {name} must be different numbers, got {numbers}.")
    return tuple(numbers if all(isinstance(x, int) for x in numbers) else map(float, numbers))


@value
class choice(Distribution):
    """One of some numbers, each equally likely: a grid's axis, a batch of seeds.

    Args:
      values: different finite numbers, at least one, in an order that makes neighbours alike. All whole: they stay
        integers, unless the place where they stand takes floats.
    """

    discrete: ClassVar[bool] = True
    values: Iterable = part(convert=_distinct_numbers)

    @property
    def support(self) -> tuple:
        return tuple(self.values)

    def sample(self, key, shape=()):
        return jax.random.choice(key, self.as_array(), shape)

    def perturb(self, key, x, factors=(0.8, 1.2)):
        """Each of the values `x` moves to a neighbour in the order of `values`, up or down, and stays at the ends."""
        values = self.as_array()
        distances = jnp.abs(jnp.expand_dims(values, range(jnp.ndim(x))) - jnp.expand_dims(x, -1))
        place = jnp.argmin(distances, axis=-1)
        step = jnp.where(jax.random.bernoulli(key, 0.5, jnp.shape(x)), 1, -1)
        return values[jnp.clip(place + step, 0, len(values) - 1)]

    def suggest(self, trial, name):
        return trial.suggest_categorical(name, self.support)

    def as_array(self) -> Array:
        """The values: integers if all are whole numbers written as such, else floats."""
        return jnp.asarray(self.support, jnp.result_type(*self.support))


def is_distribution(x: Any) -> bool:
    """For `is_leaf`, where a distribution keeps the place of the number."""
    return isinstance(x, Distribution)


def plain(x: Any) -> Any:
    """A scalar as a Python number; for a float32, the shortest decimal that rounds to it: 0.1, not 0.100000001."""
    x = np.asarray(x)[()]
    return float(str(x)) if jnp.issubdtype(x.dtype, jnp.floating) else x.item()


def _finite(owner: str, name: str, x: Any) -> float | int:
    if not isinstance(x, (int, float)) and hasattr(x, "dtype") and jnp.ndim(x) == 0:
        x = plain(x)
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        raise TypeError(f"`{owner}`: {name} must be a number, got {x!r} of type {type(x).__name__}.")
    limit = jnp.iinfo(jnp.result_type(int)).max if isinstance(x, int) else float(jnp.finfo(_floating()).max)
    if math.isnan(x) or abs(x) > limit:
        raise ValueError(f"`{owner}`: {name} must be finite, and at most {limit}, got {x!r}.")
    return x


def _floating() -> Any:
    return jnp.result_type(float)

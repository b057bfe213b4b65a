"""Gradient noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import keys, leafwise
from gradtx.clock import ClockState, Hyperparameter, as_float, at, tick
from gradtx.core import GradientTransformation, Updates, transformation
from gradtx.moments import length
from gradtx.value import number, part, state, static


@state
class AddNoiseState(NamedTuple):
    """Optax's state of `add_noise`, for programs that hold one. Here the key is no state: see `add_noise`."""

    count: Array  # int32 scalar: updates made so far
    rng_key: Array  # the key of the next update's noise


@transformation
class add_noise(GradientTransformation):
    """Adds Gaussian noise, whose variance falls with time, to the updates.

        u = g + n,    n ~ N(0, eta / (1 + t)^gamma),    t = 0 at the first update

    Args:
      eta: variance at the first update, in squared units of the updates. Not negative.
      gamma: how fast the variance falls; 0 keeps it. Not negative.
      key: an int, or a key of `jax.random`. Two runs with one key see the same noise, so there is no default: None is
        an error at the first update.
      seed: an older name of `key`.

    The noise is a function of the key, the time and the leaf's place, so a run resumed from a checkpoint continues with
    the noise that it would have seen. The two parts of a complex entry get noise of that variance each.

    State: the time. Reads: updates only.
    Source: Neelakantan et al., Adding gradient noise improves learning for very deep networks, 2015 (arXiv:1511.06807).
    Differs from Optax: the key is a field, not state; there is no default key, which would be everyone's; both parts of
      complex noise have that variance.
    """

    eta: Hyperparameter = number(within="[0, inf)")
    gamma: Hyperparameter = number(within="[0, inf)")
    key: Any = part(default=None, convert=keys.checked_or_none)
    seed: Any = static(default=None, kw_only=True)

    def __post_init__(self) -> None:
        keys.take_seed(self)
        super().__post_init__()

    def update(self, updates, state, params=None, **extra):
        keys.checked(self.name, "key", self.key)  # None, which a program may build with and never use
        eta, gamma = at(state.count, self.eta, self.gamma)
        deviation = length(eta * (1 + as_float(state.count)) ** -gamma)
        return with_noise(updates, self.key, state.count, deviation), ClockState(tick(state.count))


def with_noise(updates: Updates, key: Any, count: Array, deviation: Any) -> Updates:
    """The updates with Gaussian noise that is a function of the key, the time and the leaf's place.

    Args:
      key: from `keys.checked`.
      deviation: its standard deviation, of each part of a complex entry.
    """
    leaves, structure = jax.tree.flatten(updates)
    key = jax.random.fold_in(keys.typed(key), count)
    rows = [(g, jax.random.fold_in(key, place)) for place, g in enumerate(leaves)]
    noisy = leafwise.alike(lambda g, key: g + deviation * _normal(key, g), rows)
    return structure.unflatten(noisy)


def _normal(key: Any, like: Array) -> Array:
    noise = jax.random.normal(key, like.shape, like.dtype)
    return noise * 2**0.5 if jnp.iscomplexobj(like) else noise  # JAX's complex normal has half the variance per part

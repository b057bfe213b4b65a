"""Gradient noise."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import keys, leafwise
from gradtx.clock import ClockState, Hyperparameter, as_float, at, tick
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import length
from gradtx.value import number, part


@transformation
class add_noise(GradientTransformation):
    """Adds Gaussian noise, whose variance falls with time, to the updates.

        u = g + n,    n ~ N(0, eta / (1 + t)^gamma),    t = 0 at the first update

    Args:
      eta: variance at the first update, in squared units of the updates. Not negative.
      gamma: how fast the variance falls; 0 keeps it. Not negative.
      key: an int, or a key of `jax.random`. Two runs with one key see the same noise.

    The noise is a function of the key, the time and the leaf's place, so a run resumed from a checkpoint continues with
    the noise that it would have seen. The two parts of a complex entry get noise of that variance each.

    State: the time. Reads: updates only.
    Source: Neelakantan et al., Adding gradient noise improves learning for very deep networks, 2015 (arXiv:1511.06807).
    Differs from Optax: the key is a field, not state; there is no default key; both parts of complex noise have that
      variance.
    """

    eta: Hyperparameter = number(within="[0, inf)")
    gamma: Hyperparameter = number(within="[0, inf)")
    key: Any = part(convert=keys.checked)

    def update(self, updates, state, params=None, **extra):
        eta, gamma = at(state.count, self.eta, self.gamma)
        deviation = length(eta * (1 + as_float(state.count)) ** -gamma)
        leaves, structure = jax.tree.flatten(updates)
        key = jax.random.fold_in(keys.typed(self.key), state.count)
        rows = [(g, jax.random.fold_in(key, place)) for place, g in enumerate(leaves)]
        noisy = leafwise.alike(lambda g, key: g + deviation * _normal(key, g), rows)
        return structure.unflatten(noisy), ClockState(tick(state.count))


def _normal(key: Any, like: Array) -> Array:
    noise = jax.random.normal(key, like.shape, like.dtype)
    return noise * 2**0.5 if jnp.iscomplexobj(like) else noise  # JAX's complex normal has half the variance per part

"""DP-SGD: gradient descent that does not tell of any single example (Abadi et al., 2016)."""

from typing import Any, NamedTuple

import jax
from jax import Array

from gradtx import keys
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.optimizers.sgd import sgd
from gradtx.transforms.noise import with_noise
from gradtx.transforms.per_example import beside, per_example_global_norm_clip
from gradtx.value import number, part, state, static


@state
class DifferentiallyPrivateAggregateState(NamedTuple):
    """Optax's state of `differentially_private_aggregate`, for programs that hold one. Here the key is no state."""

    rng_key: Array  # the key of the next update's noise


@transformation
class differentially_private_aggregate(GradientTransformation):
    """Replaces the gradients of a batch's n examples by a noisy mean in which no example weighs more than a bound.

        u = (sum_i g_i min(1, C / |g_i|) + n) / n,      n ~ N(0, (noise_multiplier C)^2),      C = l2_norm_clip

    It takes the gradient of each example, along a first axis, as `jax.vmap(jax.grad(loss), (None, 0))` returns them.
    So it stands first in a chain; and no accumulation may stand around it: a bound on the mean of a micro-batch bounds
    no example.

    Args:
      l2_norm_clip: C, the largest norm of an example's gradient, over all leaves, in units of the gradient. Not
        negative.
      noise_multiplier: the noise's standard deviation in units of C. Not negative; with 0 nothing is private. How much
        privacy it buys depends on the share of the data in a batch and the number of updates: an accountant tells.
      key: an int, or a key of `jax.random`; it must stay secret. There is no default: None is an error.
      seed: an older name of `key`.

    The noise is a function of the key, the time and the leaf's place: two runs with one key see the same noise, and a
    run resumed from a checkpoint sees what it would have seen. A parameter without a gradient gets none.

    State: the time. Reads: the gradients of examples.
    Raises:
      ValueError: the leaves' first axes differ, or without them a leaf has another shape than its parameter.
    Source: Abadi et al., Deep learning with differential privacy, 2016, Algorithm 1 (arXiv:1607.00133).
    Differs from Optax: the key is a field, not state; there is no default key; norms and sums are float32 or wider.
    """

    l2_norm_clip: Hyperparameter = number(within="[0, inf)")
    noise_multiplier: Hyperparameter = number(within="[0, inf)")
    key: Any = part(default=None, convert=keys.checked)
    seed: Any = static(default=None, kw_only=True)

    def __post_init__(self) -> None:
        keys.take_seed(self)
        super().__post_init__()

    @property
    def of_examples(self) -> bool:
        return True

    def update(self, updates, state, params=None, **extra):
        bound, multiplier = at(state.count, self.l2_norm_clip, self.noise_multiplier)
        count = tick(state.count)
        if not (leaves := jax.tree.leaves(updates)):
            return updates, ClockState(count)
        sums, _ = per_example_global_norm_clip(updates, bound)
        noisy = with_noise(sums, self.key, state.count, multiplier * bound)
        share = 1 / max(leaves[0].shape[0], 1)
        return beside(params, jax.tree.map(lambda g: g * share, noisy)), ClockState(count)


def dpsgd(
    learning_rate: Hyperparameter,
    l2_norm_clip: Hyperparameter,
    noise_multiplier: Hyperparameter,
    seed: Any = None,
    momentum: Hyperparameter | None = None,
    nesterov: bool = False,
    *,
    key: Any = None,
) -> GradientTransformation:
    """Steps against a mean gradient that tells of no single example. Other arguments:
    `differentially_private_aggregate`, `sgd`.

        p <- p - learning_rate u,       u = (sum_i g_i min(1, C / |g_i|) + n) / n

        grads = jax.vmap(jax.grad(loss), (None, 0))(params, batch)
        updates, state = tx.update(grads, state, params)

    Args:
      learning_rate: in units of the parameters per unit of gradient.
      key: a newer name of `seed`; one of the two must be given.

    State: the time; 4 bytes per float32 parameter with momentum. Reads: the gradients of examples.
    Source: Abadi et al., Deep learning with differential privacy, 2016, Algorithm 1 (arXiv:1607.00133).
    """
    private = differentially_private_aggregate(l2_norm_clip, noise_multiplier, key, seed=seed)
    return chain(private, sgd(learning_rate, momentum, nesterov))

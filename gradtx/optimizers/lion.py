"""Lion (Chen et al., 2023): the sign of an interpolated momentum."""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import by_parts, ema
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state, static, storage_dtype

MODES = ("hard", "smooth", "refined")


@state
class ScaleByLionState(NamedTuple):
    """State of `scale_by_lion`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`


@transformation
class scale_by_lion(GradientTransformation):
    """Replaces the gradient by the sign of its interpolation with a running mean.

        u = sign(x),    x = b1 mu + (1 - b1) g
        mu = b2 mu + (1 - b2) g                from zero

    It is computed in the other order: of the new mu, u is the sign of b1 mu + (b2 - b1) g, which is b2 x. So the old mu
    need not be kept.

    Args:
      b1: weight of the mean in the step, in [0, 1).
      b2: decay of the mean, in (0, 1).
      mu_dtype: storage of mu; None means float32 or wider.
      mode: what replaces the sign. "hard": nothing; "smooth": tanh(smooth_beta x); "refined": x, kept within -1 and 1.
        The last two know the gradient's size.
      smooth_beta: in units of 1 / gradient. Not negative; the larger, the nearer to the sign. Read in mode "smooth".

    State: 4 bytes per float32 parameter. Reads: gradients only.
    Source: Chen et al., Symbolic discovery of optimization algorithms, NeurIPS 2023, Program 1 (arXiv:2302.06675); the
      other modes are Optax's. A complex entry counts as its two parts. b2 = 0, a mean without memory, is not taken.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.99, within="(0, 1)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    mode: Literal["hard", "smooth", "refined"] = static(default="hard", one_of=MODES, kw_only=True)
    smooth_beta: Hyperparameter = number(default=1.0, within="[0, inf)", kw_only=True)

    def init(self, params):
        return ScaleByLionState(start(), mu=leafwise.zeros(params, self.mu_dtype))

    def update(self, updates, state, params=None, **extra):
        b1, b2, beta = at(state.count, self.b1, self.b2, self.smooth_beta)
        # of a real number that is b2 x
        squash = {
            "hard": jnp.sign,
            "smooth": lambda x: jnp.tanh(x * (beta / b2)),
            "refined": lambda x: jnp.clip(x * (1 / b2), -1, 1),
        }[self.mode]

        def leaf(g, mu):
            mu = ema(mu, g, b2)
            return by_parts(squash, b1 * mu + (b2 - b1) * g), mu

        updates, mu = leafwise.unzip_map(leaf, updates, state.mu, outputs=2)
        return updates, ScaleByLionState(tick(state.count), mu)


def lion(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.99,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 1e-3,
    mask: Any = None,
) -> GradientTransformation:
    """Lion: every coordinate moves by the learning rate, and decays. Other arguments: `scale_by_lion`.

        p <- p - learning_rate (sign(b1 mu + (1 - b1) g) + weight_decay p)

    Args:
      learning_rate: in units of the parameters; 3 to 10 times below AdamW's.
      weight_decay: 3 to 10 times above AdamW's, to keep learning_rate weight_decay. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_lion(b1, b2, mu_dtype), add_decayed_weights(weight_decay, mask), scale_by_learning_rate(learning_rate)
    )

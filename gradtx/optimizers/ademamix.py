"""AdEMAMix (Pagliardini et al., 2024): Adam with a second, much slower mean of the gradient."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, arrays_at, as_float, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.schedules.schedule import POSITIVE_STEPS, Schedule, Steps, following
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means, Squares
from gradtx.value import number, state, storage_dtype, value


@state
class ScaleByAdemamixState(NamedTuple):
    """State of `scale_by_ademamix`."""

    count: Array  # int32 scalar: updates made so far
    count_m2: Array  # int32 scalar: the time that b3 and alpha read; reset it to start their schedules again
    m1: Means  # fast running mean of g, stored as `mu_dtype`
    m2: Means  # slow running mean of g, stored as `mu_dtype`
    nu: Squares  # running mean of |g|^2, real, float32 or wider


@value
class ademamix_alpha_schedule(Schedule):
    """Lets AdEMAMix's alpha rise from 0 in a straight line.

        alpha min(t / steps, 1),       t = count + 1, the number of the update

    Args:
      alpha: at the end. Not negative.
      steps: until then, at least 1; the paper has the whole training.

    Source: Pagliardini, Ablin, Grangier, The AdEMAMix optimizer, ICLR 2025, equation for alpha(t) (arXiv:2409.03137).
    """

    alpha: Hyperparameter = number(within="[0, inf)")
    steps: Steps = number(integer=True, within=POSITIVE_STEPS)

    def value_at(self, count):
        (alpha,) = arrays_at(count, self.alpha)
        return alpha * jnp.minimum(as_float(following(count)) / as_float(self.steps), 1)


@value
class ademamix_b3_schedule(Schedule):
    """Lets AdEMAMix's b3 rise from b1, so that the half-life of its mean rises in a straight line.

        exp(1 / ((1 - s) / log b1 + s / log b3)),      s = min(t / steps, 1),  t = count + 1, the number of the update

    That is the paper's exp(log b1 log b3 / ((1 - s) log b3 + s log b1)), of which 0 has a value, too.

    Args:
      b3: at the end, in [0, 1).
      b1: at the start, in [0, 1): the decay of the fast mean. Below b3.
      steps: until the end, at least 1; the paper has the whole training.

    Source: Pagliardini, Ablin, Grangier, The AdEMAMix optimizer, ICLR 2025, equation for b3(t), appendix A.1
      (arXiv:2409.03137). The authors' PyTorch code adds 1e-8 to both decays until the end.
    """

    b3: Hyperparameter = number(within="[0, 1)")
    b1: Hyperparameter = number(within="[0, 1)")
    steps: Steps = number(integer=True, within=POSITIVE_STEPS)

    def value_at(self, count):
        b3, b1 = arrays_at(count, self.b3, self.b1)
        share = jnp.minimum(as_float(following(count)) / as_float(self.steps), 1)
        of = lambda b: jnp.where(b > 0, 1 / jnp.log(jnp.where(b > 0, b, 0.5)), 0)
        inverse = (1 - share) * of(b1) + share * of(b3)
        risen = jnp.where(inverse < 0, jnp.exp(1 / jnp.where(inverse < 0, inverse, -1)), 0)
        return jnp.where(share < 1, risen, b3)


@transformation
class scale_by_ademamix(GradientTransformation):
    """Divides a fast mean of the gradient, plus a slow one, by the root of its running square.

        m1 = b1 m1 + (1 - b1) g,    m2 = b3 m2 + (1 - b3) g,    nu = b2 nu + (1 - b2) |g|^2      from zero
        m = m1 / (1 - b1^t) + alpha m2,                         v = nu / (1 - b2^t)
        u = m / (sqrt(v + eps_root) + eps)

    m2 keeps its bias toward zero: it fills slowly, over 1 / (1 - b3) updates.

    Args:
      b1: decay of m1, in [0, 1).
      b2: decay of nu, in [0, 1).
      b3: decay of m2, in [0, 1). The paper lets it rise from b1: `ademamix_b3_schedule`.
      alpha: weight of the slow mean, not negative. The paper lets it rise from 0: `ademamix_alpha_schedule`.
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: inside the root, in squared units of the gradient. Not negative.
      mu_dtype: storage of m1 and m2; None means float32 or wider.

    State: 12 bytes per float32 parameter. Reads: gradients only.
    Source: Pagliardini, Ablin, Grangier, The AdEMAMix optimizer: better, faster, older, ICLR 2025, Algorithm 1
      (arXiv:2409.03137).
    Differs from Optax: nu is float32 or wider whatever `mu_dtype` says.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    b3: Hyperparameter = number(default=0.9999, within="[0, 1)")
    alpha: Hyperparameter = number(default=6.0, within="[0, inf)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)

    def init(self, params):
        return ScaleByAdemamixState(
            start(),
            start(),
            m1=leafwise.zeros(params, self.mu_dtype),
            m2=leafwise.zeros(params, self.mu_dtype),
            nu=leafwise.zeros(params, real=True),
        )

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        b3, alpha = at(state.count_m2, self.b3, self.alpha)
        count = tick(state.count)
        scale1, scale2 = 1 / ema_mass(b1, count), 1 / ema_mass(b2, count)

        def leaf(g, m1, m2, nu):
            m1, m2, nu = ema(m1, g, b1), ema(m2, g, b3), ema(nu, abs_sq(g), b2)
            return (m1 * scale1 + alpha * m2) / (root(nu * scale2 + eps_root) + eps), m1, m2, nu

        updates, m1, m2, nu = leafwise.unzip_map(leaf, updates, state.m1, state.m2, state.nu, outputs=4)
        return updates, ScaleByAdemamixState(count, tick(state.count_m2), m1, m2, nu)


def ademamix(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    b3: Hyperparameter = 0.9999,
    alpha: Hyperparameter = 5.0,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
    *,
    warmup: Steps | None = None,
) -> GradientTransformation:
    """AdamW that also follows gradients of thousands of updates ago. Other arguments: `scale_by_ademamix`.

        p <- p - learning_rate (m / (sqrt(v + eps_root) + eps) + weight_decay p)

    Args:
      learning_rate: in units of the parameters; a coordinate moves by up to 1 + alpha times this.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
      warmup: updates during which b3 rises from b1 and alpha from 0: the paper has the whole training. None: both are
        what they are from the start. For two lengths, pass the two schedules as b3 and alpha.

    Reads: params.
    """
    if warmup is not None:
        b3, alpha = ademamix_b3_schedule(b3, b1, warmup), ademamix_alpha_schedule(alpha, warmup)
    return chain(
        scale_by_ademamix(b1, b2, b3, alpha, eps, eps_root, mu_dtype),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

"""Adam (Kingma & Ba, 2015), AdamW, which decouples its weight decay, and their Nesterov forms."""

from typing import Any, NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root, unbiased_mean
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.weight_decay import decoupled
from gradtx.types import Means, Squares
from gradtx.value import flag, number, state, storage_dtype


@state
class ScaleByAdamState(NamedTuple):
    """State of `scale_by_adam`."""

    count: Array  # int32 scalar: updates made so far
    mu: Means  # running mean of g, stored as `mu_dtype`
    nu: Squares  # running mean of |g|^2, real, float32 or wider


@transformation
class scale_by_adam(GradientTransformation):
    """Divides the gradient's running mean by the root of its running square.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = m / (sqrt(v + eps_root) + eps)

    Args:
      b1: decay of mu, in [0, 1). Its memory is about 1 / (1 - b1) updates.
      b2: decay of nu, in [0, 1).
      eps: outside the root, in units of the gradient. Not negative.
      eps_root: inside the root, in squared units of the gradient. Not negative. Some texts put eps here alone.
      mu_dtype: storage of mu; None means float32 or wider. nu has no such option: below float32 its increments,
        (1 - b2) |g|^2, round to nothing.
      nesterov: look one step ahead in mu, m = b1 mu / (1 - b1^(t+1)) + (1 - b1) g / (1 - b1^t) (Dozat, 2016).
      bias_correction: False leaves out the divisions by 1 - b^t.

    State: 8 bytes per float32 parameter. Reads: gradients only.
    Source: Kingma, Ba, Adam, ICLR 2015, Algorithm 1 (arXiv:1412.6980).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")
    eps_root: Hyperparameter = number(default=0.0, within="[0, inf)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)
    nesterov: bool = flag(default=False, kw_only=True)
    bias_correction: bool = flag(default=True, kw_only=True)

    def init(self, params):
        return ScaleByAdamState(start(), mu=leafwise.zeros(params, self.mu_dtype), nu=leafwise.zeros(params, real=True))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps, eps_root = at(state.count, self.b1, self.b2, self.eps, self.eps_root)
        count = tick(state.count)
        mean = unbiased_mean(b1, count, self.nesterov, self.bias_correction)
        scale2 = 1 / ema_mass(b2, count) if self.bias_correction else 1

        def leaf(g, mu, nu):
            mu, nu = ema(mu, g, b1), ema(nu, abs_sq(g), b2)
            return mean(mu, g) / (root(nu * scale2 + eps_root) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def adam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
) -> GradientTransformation:
    """Adam: steps of about the learning rate in every coordinate. Other arguments: `scale_by_adam`.

        p <- p - learning_rate m / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, bias_correction=bias_correction),
        scale_by_learning_rate(learning_rate),
    )


def adamw(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.9,
    b2: Hyperparameter = 0.999,
    eps: Hyperparameter = 1e-8,
    eps_root: Hyperparameter = 0.0,
    mu_dtype: DTypeLike | None = None,
    weight_decay: Hyperparameter = 1e-4,
    mask: Any = None,
    *,
    nesterov: bool = False,
    bias_correction: bool = True,
    decay_coupling: str = "rate",
    peak_learning_rate: Hyperparameter | None = None,
    cautious_decay: bool = False,
) -> GradientTransformation:
    """Adam whose weight decay bypasses the moments. Other arguments: `scale_by_adam`.

        p <- p (1 - learning_rate weight_decay) - learning_rate m / (sqrt(v + eps_root) + eps)

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: fraction of p removed per update, before the learning rate multiplies it. Not negative.
      mask: which leaves decay; None, all. See `add_decayed_weights`.
      decay_coupling: what multiplies the decay: "rate", the rate; "schedule", the rate over its peak, as in the paper;
        "none", nothing; "squared", the rate squared over its peak, which is AdamC.
      peak_learning_rate: the largest rate, where that is read and `learning_rate` is a schedule: `decay_weights`.
      cautious_decay: only entries decay that the step does not make larger.

    Reads: params.
    Source: Loshchilov, Hutter, Decoupled weight decay regularization, ICLR 2019, Algorithm 2 (arXiv:1711.05101), with
      its schedule multiplier and learning rate merged, as in PyTorch. The others: `decay_weights`.
    """
    return chain(
        scale_by_adam(b1, b2, eps, eps_root, mu_dtype, nesterov=nesterov, bias_correction=bias_correction),
        decoupled(learning_rate, weight_decay, mask, decay_coupling, peak_learning_rate, cautious_decay),
    )

"""QHAdam (Ma, Yarats, 2019): Adam with averages of the gradient and its mean, and of their squares."""

from typing import Any

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import abs_sq, ema, ema_mass, root
from gradtx.optimizers.adam import ScaleByAdamState, scale_by_adam
from gradtx.transforms.decay import add_decayed_weights
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number


@transformation
class scale_by_qhadam(GradientTransformation):
    """Divides an average of the gradient and its mean by the root of an average of their squares.

        mu = b1 mu + (1 - b1) g,          nu = b2 nu + (1 - b2) |g|^2           from zero
        m = mu / (1 - b1^t),              v = nu / (1 - b2^t)
        u = ((1 - nu1) g + nu1 m) / (sqrt((1 - nu2) |g|^2 + nu2 v) + eps)

    nu1 = nu2 = 1 is Adam; nu1 = b1, nu2 = 1 nearly Nadam.

    Args:
      b1: decay of mu, in [0, 1).
      b2: decay of nu, in [0, 1).
      nu1: weight of m, in [0, 1].
      nu2: weight of v, in [0, 1]. Below 1 no step is longer than about 1 / sqrt(1 - nu2).
      eps: outside the root, in units of the gradient. Not negative.

    State: 8 bytes per float32 parameter, a `ScaleByAdamState`. Reads: gradients only.
    Source: Ma, Yarats, Quasi-hyperbolic momentum and Adam for deep learning, ICLR 2019, section 4 (arXiv:1810.06801).
      The defaults are those that its code recommends.
    """

    b1: Hyperparameter = number(default=0.995, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")
    nu1: Hyperparameter = number(default=0.7, within="[0, 1]")
    nu2: Hyperparameter = number(default=1.0, within="[0, 1]")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def init(self, params):
        return scale_by_adam().bare_init(params)

    def update(self, updates, state, params=None, **extra):
        b1, b2, nu1, nu2, eps = at(state.count, self.b1, self.b2, self.nu1, self.nu2, self.eps)
        count = tick(state.count)
        scale1, scale2 = nu1 / ema_mass(b1, count), nu2 / ema_mass(b2, count)

        def leaf(g, mu, nu):
            square = abs_sq(g)
            mu, nu = ema(mu, g, b1), ema(nu, square, b2)
            return ((1 - nu1) * g + mu * scale1) / (root((1 - nu2) * square + nu * scale2) + eps), mu, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleByAdamState(count, mu, nu)


def qhadam(
    learning_rate: Hyperparameter,
    b1: Hyperparameter = 0.995,
    b2: Hyperparameter = 0.999,
    nu1: Hyperparameter = 0.7,
    nu2: Hyperparameter = 1.0,
    eps: Hyperparameter = 1e-8,
    weight_decay: Hyperparameter = 0.0,
    mask: Any = None,
) -> GradientTransformation:
    """Quasi-hyperbolic Adam. Other arguments: `scale_by_qhadam`.

        p <- p (1 - learning_rate weight_decay) - learning_rate u

    Args:
      learning_rate: in units of the parameters; each coordinate moves by about this much.
      weight_decay: decoupled, as in `adamw`. Not negative.
      mask: which leaves decay; see `add_decayed_weights`.

    Reads: params.
    """
    return chain(
        scale_by_qhadam(b1, b2, nu1, nu2, eps),
        add_decayed_weights(weight_decay, mask),
        scale_by_learning_rate(learning_rate),
    )

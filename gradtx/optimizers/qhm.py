"""QHM (Ma, Yarats, 2019): gradient descent along an average of the gradient and its mean."""

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import ema
from gradtx.transforms.momentum import EmaState
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import number


@transformation
class scale_by_qhm(GradientTransformation):
    """Averages the gradient with its running mean: quasi-hyperbolic momentum.

        m = beta m + (1 - beta) g                   from zero
        u = (1 - nu) g + nu m

    nu = 0 is gradient descent, 1 momentum, beta Nesterov's.

    Args:
      beta: decay of m, in [0, 1).
      nu: weight of m, in [0, 1].

    State: 4 bytes per float32 parameter, an `EmaState`. Reads: gradients only.
    Source: Ma, Yarats, Quasi-hyperbolic momentum and Adam for deep learning, ICLR 2019, section 3 (arXiv:1810.06801).
    """

    beta: Hyperparameter = number(default=0.999, within="[0, 1)")
    nu: Hyperparameter = number(default=0.7, within="[0, 1]")

    def init(self, params):
        return EmaState(start(), leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        beta, nu = at(state.count, self.beta, self.nu)

        def leaf(g, m):
            m = ema(m, g, beta)
            return (1 - nu) * g + nu * m, m

        updates, m = leafwise.unzip_map(leaf, updates, state.ema, outputs=2)
        return updates, EmaState(tick(state.count), m)


def qhm(
    learning_rate: Hyperparameter, beta: Hyperparameter = 0.999, nu: Hyperparameter = 0.7
) -> GradientTransformation:
    """Gradient descent with quasi-hyperbolic momentum. Other arguments: `scale_by_qhm`.

        p <- p - learning_rate ((1 - nu) g + nu m)

    Args:
      learning_rate: in units of the parameters per unit of gradient: that of `sgd` with momentum over 1 - beta.
    """
    return chain(scale_by_qhm(beta, nu), scale_by_learning_rate(learning_rate))

"""Bias correction that stands apart from the moments."""

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.core import GradientTransformation, transformation
from gradtx.moments import ema_mass, root
from gradtx.value import number


@transformation
class scale_by_bias_correction(GradientTransformation):
    """Multiplies the updates by what corrects the bias of Adam's moments, for moments that were left uncorrected.

        u = g sqrt(1 - b2^t) / (1 - b1^t)           t = 1 at the first update

    After `scale_by_adam(b1, b2, eps, bias_correction=False)` it makes Adam with eps beside the uncorrected root, as in
    the first version of the paper's section 2, and in much published code.

    Args:
      b1: decay of the first moment, in [0, 1).
      b2: decay of the second, in [0, 1).

    State: the time. Reads: updates only.
    Source: Kingma, Ba, Adam, ICLR 2015, the last paragraph before section 2.1 (arXiv:1412.6980).
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.999, within="[0, 1)")

    def update(self, updates, state, params=None, **extra):
        b1, b2 = at(state.count, self.b1, self.b2)
        count = tick(state.count)
        factor = root(ema_mass(b2, count)) / ema_mass(b1, count)
        return leafwise.map(lambda g: g * factor, updates), ClockState(count)

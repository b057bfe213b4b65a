"""EMA-Nesterov (2026): gradients ahead along the mean of the last steps."""

from typing import NamedTuple

from jax import Array
from jax.typing import DTypeLike

from gradtx import geometry, leafwise
from gradtx.clock import Hyperparameter, at, start, tick, time
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.moments import ema
from gradtx.types import Means
from gradtx.value import number, part, state, storage_dtype


@state
class EmaNesterovState(NamedTuple):
    """State of `ema_nesterov`."""

    count: Array  # int32 scalar: updates made so far
    beta: Array  # with which the parameters were made last; scalar, float32 or wider
    mu: Means  # running mean of how x moves, stored as `mu_dtype`
    inner_state: State


@transformation
class ema_nesterov(GradientTransformation):
    """Takes gradients ahead of the model, along the running mean of how it moves, whatever the method.

        x' = y + step of `inner` at (g(y), y)               the parameters that are trained are y
        mu' = decay mu + (1 - decay) (x' - x)               from zero
        y' = x' + beta mu'

    It is computed as y' - y = step + beta mu', with x' - x = step + beta mu, so x is not stored. The model is evaluated
    with x: `eval_params(tx, state, params)`. While beta is 0, y is x and the updates are those of `inner`, to the bit.

    Args:
      inner: a transformation that ends in a descent step, weight decay and all, or a foreign `(init, update)` pair.
      beta: how far ahead, in [0, 1): steps along mu. In the long run x moves 1 / (1 - beta) steps at a time. A schedule
        is read at t + 1, for the y that is made; the authors' follows the rate, and is 0 at the start and at the end.
      decay: of mu, in [0, 1).
      mu_dtype: storage of mu; None means float32 or wider.

    State: 4 bytes per float32 parameter, 8, and the inner one's. Reads: what the inner one reads.
    Source: Yau et al., EMA-Nesterov, 2026 (arXiv:2605.25395), which keeps x.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    beta: Hyperparameter = number(default=0.3, within="[0, 1)")
    decay: Hyperparameter = number(default=0.99, within="[0, 1)")
    mu_dtype: DTypeLike | None = storage_dtype(default=None)

    def init(self, params):
        mu = leafwise.zeros(params, self.mu_dtype)
        return EmaNesterovState(start(), geometry.scalar(params, 0), mu, self.inner.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        count = tick(state.count)
        (beta,), (decay,) = at(count, self.beta), at(state.count, self.decay)
        with time(state.count):
            steps, inner = self.inner.bare_update(updates, state.inner_state, params, **extra)

        def leaf(u, mu):
            mu = ema(mu, u + state.beta.astype(u.real.dtype) * mu, decay)
            return u + beta * mu, mu

        outgoing, mu = leafwise.unzip_map(leaf, steps, state.mu, outputs=2)
        return outgoing, EmaNesterovState(count, geometry.scalar(state.mu, beta), mu, inner)

    def eval_params(self, state, params):
        home = leafwise.evaluated(lambda p, mu: p - state.beta * mu, params, state.mu)
        return self.inner.eval_params(state.inner_state, home)

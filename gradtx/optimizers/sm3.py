"""SM3 (Anil et al., 2019): AdaGrad that keeps one vector per dimension in place of the whole second moment."""

import functools
from typing import NamedTuple

import jax.numpy as jnp

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.moments import abs_sq, again, ema
from gradtx.placement import zeros_of_axes
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.types import Means
from gradtx.value import number, state


@state
class ScaleBySM3State(NamedTuple):
    """State of `scale_by_sm3`."""

    mu: Params  # for each leaf a list with a vector per dimension: the largest sums of |g|^2, real, float32 or wider
    nu: Means  # running mean of the scaled gradient, float32 or wider


@transformation
class scale_by_sm3(GradientTransformation):
    """Divides the gradient by the root of a bound on the sum of its squares, then averages over time.

        s[i, j] = b2 min(row[i], col[j]) + (1 - b2) |g[i, j]|^2            s = min(row, col) + |g|^2   at b2 = 1
        row[i] = max_j s[i, j],   col[j] = max_i s[i, j]                   from zero
        nu = b1 nu + (1 - b1) g / sqrt(s + eps)                            from zero; 0 where s is 0
        u = nu

    Written for a matrix; a leaf of k dimensions has k vectors. One of fewer than two has its whole s: AdaGrad.

    Args:
      b1: decay of nu, in [0, 1).
      b2: decay of s, in [0, 1]; 1, the paper's, sums.
      eps: inside the root, in squared units of the gradient. Not negative.

    State: 4 bytes per float32 parameter, 4 per row and column. Reads: gradients only; once more for each dimension.
    Source: Anil, Gupta, Koren, Singer, Memory-efficient adaptive optimization, NeurIPS 2019, Algorithm SM3-II
      (arXiv:1901.11150), with the slices along each dimension for its sets. Differs from Optax: scalars and complex
      leaves are taken.
    """

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=1.0, within="[0, 1]")
    eps: Hyperparameter = number(default=1e-8, within="[0, inf)")

    def init(self, params):
        def leaf(p):
            square = leafwise.zeros(p, real=True)
            return [zeros_of_axes(square, [(i,)][: square.ndim]) for i in range(max(square.ndim, 1))]

        return ScaleBySM3State(leafwise.map(leaf, params), leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        b1, b2, eps = at(now(), self.b1, self.b2, self.eps)
        fresh = jnp.where(b2 == 1, 1, 1 - b2)

        def bound(g, *mu):
            least = functools.reduce(jnp.minimum, [_across(x, i, g.ndim) for i, x in enumerate(mu)])
            return b2 * least + fresh * abs_sq(g)

        def leaf(g, mu, nu):
            total, largest = bound(g, *mu), []
            nu = ema(nu, g * jnp.where(total > 0, 1 / jnp.sqrt(jnp.where(total > 0, total + eps, 1.0)), 0.0), b1)
            for i in range(len(mu)):
                g, *mu = again(g, *mu)  # one pass more is less than one that writes the bound
                largest.append(jnp.max(bound(g, *mu), axis=_others(i, g.ndim), initial=0))
            return nu, largest, nu

        updates, mu, nu = leafwise.unzip_map(leaf, updates, state.mu, state.nu, outputs=3)
        return updates, ScaleBySM3State(mu, nu)


def sm3(learning_rate: Hyperparameter, momentum: Hyperparameter = 0.9) -> GradientTransformation:
    """SM3: AdaGrad with little state, and momentum. Other arguments: `scale_by_sm3`.

        p <- p - learning_rate nu

    Args:
      learning_rate: in units of the parameters.
      momentum: decay of the average of the steps, in [0, 1).
    """
    return chain(scale_by_sm3(momentum), scale_by_learning_rate(learning_rate))


def _others(i: int, ndim: int) -> tuple[int, ...]:
    return tuple(j for j in range(ndim) if j != i)


def _across(x, i: int, ndim: int):
    """A vector along dimension i of an array with that many."""
    return jnp.expand_dims(x, _others(i, ndim))

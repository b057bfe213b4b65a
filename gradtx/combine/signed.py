"""The lengths that a method gives to the entries of its step, with the signs of the gradient."""

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.value import part


@transformation
class signed_by_gradient(GradientTransformation):
    """Gives each entry of a method's updates the sign of the gradient that came in.

        u = |n| sign(g)                  n from `inner`; real and imaginary parts apart

    So no entry moves uphill of the newest gradient: momentum decides how far, never whither. Where g is 0, u is.

        chain(signed_by_gradient(scale_by_adam()), scale_by_learning_rate(1e-3))             # Grams

    Args:
      inner: a transformation, or a foreign `(init, update)` pair, of gradients: in front of the learning rate.

    State: that of `inner`. Reads: what it reads.
    Source: Cao, Li, Song, Grams: gradient descent with adaptive momentum scaling, 2024 (arXiv:2412.17107).
    """

    inner: GradientTransformation = part(convert=as_transformation)

    def init(self, params):
        return self.inner.bare_init(params)

    def update(self, updates, state, params=None, **extra):
        lengths, state = self.inner.bare_update(updates, state, params, **extra)

        def leaf(g, n):
            if not jnp.iscomplexobj(g):
                return jnp.sign(g) * jnp.abs(n)
            return jax.lax.complex(leaf(g.real, n.real), leaf(g.imag, n.imag))

        return leafwise.map(leaf, updates, lengths), state

    def eval_params(self, state, params):
        return self.inner.eval_params(state, params)

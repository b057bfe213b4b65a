"""Writes Lion, 15 lines from its paper's formula, and a clip whose bound is a schedule; then trains with both.

python -m examples.write_your_own
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

import gradtx
from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, start, tick
from gradtx.moments import ema
from gradtx.value import number


class MyLionState(NamedTuple):
    """What Lion remembers."""

    count: jax.Array  # updates made so far
    mu: dict  # running mean of the gradient


@gradtx.transformation
class scale_by_my_lion(gradtx.GradientTransformation):
    """The sign of an interpolated momentum: u = sign(b1 mu + (1 - b1) g), mu = b2 mu + (1 - b2) g."""

    b1: Hyperparameter = number(default=0.9, within="[0, 1)")
    b2: Hyperparameter = number(default=0.99, within="[0, 1)")

    def init(self, params):
        return MyLionState(start(), mu=leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        b1, b2 = at(state.count, self.b1, self.b2)

        def leaf(g, mu):
            return jnp.sign(ema(mu, g, b1)), ema(mu, g, b2)

        updates, mu = leafwise.unzip_map(leaf, updates, state.mu, outputs=2)
        return updates, MyLionState(tick(state.count), mu)


@gradtx.transformation
class soft_clip(gradtx.GradientTransformation):
    """Squashes each entry smoothly into (-bound, bound): u = bound tanh(g / bound). It remembers only the time."""

    bound: Hyperparameter = number(within="(0, inf)")

    def update(self, updates, state, params=None, **extra):
        (bound,) = at(state.count, self.bound)
        return leafwise.map(lambda g: bound * jnp.tanh(g / bound), updates), gradtx.ClockState(tick(state.count))


if __name__ == "__main__":
    tx = gradtx.chain(
        soft_clip(gradtx.linear_schedule(10.0, 1.0, 100)),
        scale_by_my_lion(b1=0.8, b2=0.95),
        gradtx.scale_by_learning_rate(gradtx.cosine_decay_schedule(0.01, 600)),
    )
    print(tx)

    target = jnp.array([1.0, -1.0, 0.5])
    params = {"p": jnp.zeros(3)}

    def step(carry, _):
        """One update of all."""
        params, state = carry
        grads = jax.grad(lambda q: jnp.sum((q["p"] - target) ** 2))(params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), None

    (params, state), _ = jax.lax.scan(step, (params, tx.init(params)), length=600)
    print(f"reached {params['p']} of {target}")
    print(f"state: {jax.tree.map(lambda x: str(x.dtype), state)}")
    narrow = tx.init({"p": jnp.zeros(3, jnp.bfloat16)})  # kept in float32, though nothing in the class says so
    print(f"state for bfloat16 parameters: {narrow['scale_by_my_lion'].mu['p'].dtype}\n")

    ours, theirs = (gradtx.chain(lion, gradtx.scale(-0.1)) for lion in (scale_by_my_lion(), gradtx.scale_by_lion()))
    g = jnp.array([0.3, -2.0])
    same = jnp.array_equal(ours.update(g, ours.init(g))[0], theirs.update(g, theirs.init(g))[0])
    print(f"the same step as gradtx.scale_by_lion: {bool(same)}")
    try:
        scale_by_my_lion(b1=1.5)
    except ValueError as error:
        print(f"a wrong number: {error}")

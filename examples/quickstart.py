"""Fits a line to 64 noisy points.

python -m examples.quickstart
"""

import jax
import jax.numpy as jnp

import gradtx

x = jnp.linspace(-1, 1, 64)
y = 2 * x + 1 + 0.05 * jax.random.normal(jax.random.key(0), x.shape)


def loss(params):
    """The mean squared error of the line w x + b."""
    return jnp.mean((params["w"] * x + params["b"] - y) ** 2)


@jax.jit
def step(tx, params, state):
    """One update. The transformation is an argument like any other: new numbers in it compile nothing."""
    updates, state = tx.update(jax.grad(loss)(params), state, params)
    return gradtx.apply_updates(params, updates), state


for learning_rate in (0.03, gradtx.cosine_decay_schedule(0.3, decay_steps=200)):
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adam(learning_rate))
    params = {"w": jnp.zeros(()), "b": jnp.zeros(())}
    state = tx.init(params)
    for _ in range(200):
        params, state = step(tx, params, state)
    print(f"{tx}\n  w = {params['w']:.3f}, b = {params['b']:.3f}, loss = {loss(params):.5f}\n")

"""Small trees, and steps that any transformation can take."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gradtx


def tree_of(dtype, seed=0, lead=()):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=lead + shape), dtype)
    return {"dense": {"kernel": draw(4, 6), "bias": draw(6)}, "scale": draw()}


def avals(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)


def convex(params):
    """A function for methods that read one; the others ignore it. Second derivatives lie between 1 and 2."""
    return sum(jnp.sum(x**2 / 2 + jnp.logaddexp(x, -x)) for x in jax.tree.leaves(params) if eqx.is_inexact_array(x))


def step(tx, params, state, grads):
    updates, state = tx.update(grads, state, params, value_fn=convex, value=convex(params), grad=grads)
    return gradtx.apply_updates(params, updates), state


def run(tx, params, steps=3):
    state = tx.init(params)
    for seed in range(1, steps + 1):
        params, state = step(tx, params, state, tree_of("float32", seed))
    return params, state

"""Small trees, and steps that any transformation can take."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

import gradtx
import gradtx.combine.chain
from benchmarks.catalogue import CATALOGUE


def tree_of(dtype, seed=0, lead=()):
    rng = np.random.default_rng(seed)
    draw = lambda *shape: jnp.asarray(rng.normal(size=lead + shape), dtype)
    return {"dense": {"kernel": draw(4, 6), "bias": draw(6)}, "scale": draw()}


def avals(state):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), state)


def scaled(tx, factor):
    """The transformation with each of its floats multiplied."""
    return jax.tree.map(lambda x: x if isinstance(x, int) else x * factor, tx)


def convex(params):
    """A function for methods that read one; the others ignore it. Second derivatives lie between 1 and 2."""
    return sum(jnp.sum(x**2 / 2 + jnp.logaddexp(x, -x)) for x in jax.tree.leaves(params) if eqx.is_inexact_array(x))


def step(tx, params, state, grads):
    updates, state = tx.update(grads, state, params, value_fn=convex, value=convex(params), grad=grads)
    return gradtx.apply_updates(params, updates), state


def walk(tx, params, state, grads):
    """Parameters and state after a step with each of the gradients, operation by operation: as `op_by_op`."""
    with jax.disable_jit():
        for g in grads:
            params, state = step(tx, params, state, g)
    return params, state


def _links(tx):
    """What a transformation is made of: a chain's links, their parts, what stands alone."""
    if isinstance(tx, gradtx.combine.chain.Chain):
        return [x for link in tx.links for x in _links(link)]
    return [tx]


def first_of_their_kind(catalogue):
    """The names of the entries that hold a link that no entry before them holds: of another class or with other flags.

    What is proved of the links is proved of their chains: an alias of links that stand in the catalogue themselves is
    the same formulas once more.
    """
    seen, first = set(), []
    for name, entry in catalogue.items():
        kinds = {jax.tree.structure(link) for link in _links(entry.build(gradtx))}
        if not kinds <= seen:
            first.append(name)
        seen |= kinds
    return first


FIRST = first_of_their_kind(CATALOGUE)

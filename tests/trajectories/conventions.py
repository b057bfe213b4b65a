"""In which conventions authors differ: where eps stands, what is corrected for its bias, when decay comes.

Schedules express most of that, since every number may be one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import gradtx

from .follow import REFERENCE, known

LEAVES = ("w1", "b1", "w2", "s", "sq", "conv")
# In whose rows a leaf's way depends on the other leaves.
JOINT = ("dog", "dowg", "momo", "prodigy", "dadapt", "mechanic", "polyak", "lamb_timm", "sam/")


def over_root(x: float, b2: float) -> Callable:
    """x / sqrt(1 - b2^t): for an x that is added to the root of a second moment whose bias is not corrected."""
    return lambda t: x / jnp.sqrt(1 - b2 ** (t + 1.0))


def times_root(x: float, b2: float) -> Callable:
    """x sqrt(1 - b2^t): the other way around, and for rates that make up for such a second moment."""
    return lambda t: x * jnp.sqrt(1 - b2 ** (t + 1.0))


def from_step(first: int, x: float) -> Callable:
    """x from the step of this number on, counted from 1, and 0 before."""
    return lambda t: jnp.where(t + 1 >= first, x, 0.0)


def l2(weight_decay: float, tx: Any) -> Any:
    """Decay that is added to the gradient."""
    return gradtx.chain(gradtx.add_decayed_weights(weight_decay), tx)


def decayed_by(fraction: float, tx: Any) -> Any:
    """Decay by a fraction of the parameters that no learning rate multiplies; a factor below 0 adds."""
    return gradtx.chain(tx, gradtx.scale(-1.0), gradtx.add_decayed_weights(fraction), gradtx.scale(-1.0))


def relative(t: Any) -> Any:
    """Adafactor's relative step."""
    return jnp.minimum(1e-2, 1 / jnp.sqrt(t + 1.0))


HESSIAN = gradtx.GradientTransformation(
    lambda params: None, lambda updates, state, params=None, *, hessian, **extra: (hessian, state)
)


class Plain(NamedTuple):
    """A transformation of parameters, of what takes something else."""

    init: Callable
    update: Callable


def of_pairs(tx: Any) -> Plain:
    """`lookahead` of parameters that are no pair; the pair is in the state."""

    def init(params):
        pair = gradtx.LookaheadParams.init_synced(params)
        return pair, tx.init(pair)

    def update(grads, state, params, **extra):
        updates, inner = tx.update(grads, state[1], state[0])
        pair = gradtx.apply_updates(state[0], updates)
        return jax.tree.map(jnp.subtract, pair.fast, params), (pair, inner)

    return Plain(init, update)


def at_its_own_gradients(tx: Any) -> Plain:
    """Of the loss that the file describes, in place of the gradients that it lists."""

    def loss(params):
        of = lambda kind, name: jnp.asarray(REFERENCE[f"loss/{kind}/{name}"])
        bowl = lambda name, p: of("a", name) / 2 * (p - of("c", name)) ** 2
        wave = lambda name, p: of("d", name) * jnp.sin(of("w", name) * p + of("phi", name))
        return sum(jnp.sum(bowl(name, p) + wave(name, p)) for name, p in params.items())

    grad_fn = jax.grad(loss)
    return Plain(tx.init, lambda grads, state, params, **_: tx.update(grad_fn(params), state, params, grad_fn=grad_fn))


def sam(tx: Any, radius: float) -> Plain:
    uphill = gradtx.chain(gradtx.normalize(), gradtx.sgd(radius))
    return at_its_own_gradients(gradtx.sam(tx, uphill, opaque_mode=True))


def walked_with(t: int, leaves: Any) -> dict[str, Any]:
    """What methods may read besides, at a step: the loss's value, and squares as a Hessian."""
    hessian = {name: jnp.square(jnp.asarray(REFERENCE[f"hgrads/{name}"][t])) for name in leaves}
    return {"value": jnp.asarray(REFERENCE["values"][t]), "hessian": hessian}


def run_on(row: str) -> list[str]:
    """What a method must be run on for its row: all that the authors did, or what the file keeps."""
    return list(LEAVES) if any(name in row for name in JOINT) else known(row, LEAVES)

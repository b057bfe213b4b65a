"""DiLoCo (Douillard et al., 2023): devices train alone for many steps, then meet."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import collectives, geometry, leafwise, paths
from gradtx.clock import start, tick
from gradtx.collectives import Axis, as_axis, names, require_unreduced, size
from gradtx.combine.branch import update_if
from gradtx.combine.record import listening
from gradtx.core import GradientTransformation, Params, State, as_transformation, require_params, transformation
from gradtx.optimizers.sgd import sgd
from gradtx.value import number, part, state, static


@state
class LocalUpdatesState(NamedTuple):
    """State of `local_updates`."""

    steps_since_sync: Array  # int32 scalar: updates that devices made alone since they met
    anchor: Params  # the parameters with which they parted, in the parameters' dtypes, the same on all devices
    inner_state: State  # of each device: the inner transformation's own
    outer_state: State  # the outer transformation's own, the same on all devices


def _outer(owner: str, name: str, tx: Any) -> GradientTransformation:
    return sgd(0.7, momentum=0.9, nesterov=True) if tx is None else as_transformation(owner, name, tx)


@transformation
class local_updates(GradientTransformation):
    """Lets each device train by itself, and at every H-th step moves all to where they came on average, and beyond.

        p <- p + inner(g)                                 of each device, at every step
        d = anchor - mean over devices of p               at every H-th step;
        anchor <- anchor + outer(d);    p <- anchor       between them nothing is sent

    d is a gradient to the outer transformation, whose default is the source's Nesterov momentum. With
    `outer=sgd(1.0)` it is the mean of the parameters: local SGD, federated averaging.

    Updates are added to p: after a meeting p is the anchor up to rounding, which differs from device to device by some
    units in the last place. `synchronized(params, state)` makes it the anchor, bit for bit.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair, of each device's own gradients; it makes the steps,
        so that nothing goes after this one.
      every: H, at least 1. The source has 500.
      outer: a transformation, or a foreign pair, of d; None, `sgd(0.7, momentum=0.9, nesterov=True)`.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which the devices are. None: there is
        one, and the outer steps are those of a lookahead with momentum.

    Sends: 4 bytes per float32 parameter at every H-th step, in one all-reduce, within `jax.lax.cond`.
    State: 4 bytes, the parameters once more, the inner one's, which differs from device to device as the parameters do,
      and the outer one's: 4 bytes per float32 parameter with momentum. Reads: params; each device's own gradients.
    Source: Douillard et al., DiLoCo, 2023, Algorithm 1 (arXiv:2311.08105). The inner state is not averaged, as there.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    every: int = number(within="[1, inf)", integer=True)
    outer: GradientTransformation = part(default=None, convert=_outer)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        inner = self.inner.bare_init(collectives.varying(params, self.axis))
        return LocalUpdatesState(start(), geometry.copied(params), inner, self.outer.bare_init(params))

    def update(self, updates, state, params=None, **extra):
        params = collectives.varying(require_params(params, self), self.axis)
        require_unreduced(updates, self.axis)
        steps, inner = self.inner.bare_update(updates, state.inner_state, params, **extra)
        meet = state.steps_since_sync >= self.every - 1

        def meeting():
            way = leafwise.map(lambda u, p, x: jnp.conj(x - (p + u)), steps, params, state.anchor)  # as a gradient is
            if self.axis is not None:
                share = 1 / size(self.axis)
                way = jax.tree.map(lambda d: d * share, jax.lax.psum(way, names(self.axis)))
            with listening():  # its rate is of another kind
                moves, outer = self.outer.bare_update(way, state.outer_state, state.anchor)
            there = leafwise.map(lambda move, x: x + move, moves, state.anchor)
            back = leafwise.map(lambda x, p: x - p, there, params)
            return back, (_replaced(state.anchor, there), outer)

        instead = collectives.varying(steps, self.axis)
        outgoing, (anchor, outer) = update_if(meet, meeting, instead, (state.anchor, state.outer_state))
        count = jnp.where(meet, 0, tick(state.steps_since_sync))
        return outgoing, LocalUpdatesState(count, anchor, inner, outer)

    def eval_params(self, state, params):
        """The parameters that all devices had when they last met."""
        return _replaced(params, state.anchor)


def synchronized(params: Params, state: State) -> Params:
    """The parameters after a step of `local_updates`: where devices have just met, bit for bit the same on all of them.

        params = synchronized(apply_updates(params, updates), state)

    Elsewhere they are as given. At every step it reads the anchor in the state. Call it at least where parameters must
    be equal: before they are saved as replicated, or evaluated.

    Args:
      params: the parameters now.
      state: the state that the same step returned, of any depth, such as a chain's.

    Raises:
      ValueError: there is no `LocalUpdatesState` in it, or more than one.
    """
    is_local = lambda x: isinstance(x, LocalUpdatesState)
    found = [x for x in jax.tree.leaves(state, is_leaf=is_local) if is_local(x)]
    if len(found) != 1:
        raise ValueError(f"`synchronized`: the state holds {len(found)} states of `local_updates`, expected 1.")
    met = found[0].steps_since_sync == 0
    return _replaced(params, found[0].anchor, lambda p, x: jnp.where(met, x.astype(p.dtype), p))


def _replaced(tree: Any, others: Any, how: Any = lambda old, new: new) -> Any:
    """The tree with the leaves of another in place of its own, where that has one."""
    leaves, structure = jax.tree.flatten(tree, is_leaf=paths.is_none)
    _, beside = paths.aligned(structure, others, tree)
    return structure.unflatten(x if new is None else how(x, new) for x, new in zip(leaves, beside, strict=True))

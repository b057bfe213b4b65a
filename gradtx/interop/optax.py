"""Between gradtx and Optax: a transformation as Optax's object, and a running job's state in either direction.

Optax is imported in `as_optax` alone, when it is called.
"""

from typing import Any

from gradtx import leafwise
from gradtx.core import Params, State, as_transformation
from gradtx.interop.conversion import to_ours, to_theirs


def as_optax(tx: Any) -> Any:
    """The transformation as an `optax.GradientTransformationExtraArgs`.

    For code that asks `isinstance(tx, optax.GradientTransformation)`, and for Optax's own combinators. Those know their
    own type alone to take extra arguments: `optax.chain(ours)`, `optax.masked(ours, ...)` and
    `optax.with_extra_args_support(ours)` drop `value=` and every other one. They arrive through this object:

        optax.chain(optax.clip(1.0), as_optax(gradtx.newton()))

    Updates have the gradients' dtype, as Optax's own have, so that its wrappers with branches
    (`optax.apply_if_finite`) take them. The state is ours.

    Raises:
      ImportError: Optax is not installed.
    """
    import optax

    ours = as_transformation("as_optax", "tx", tx)

    def update(updates: Any, state: Any, params: Any = None, **extra: Any) -> tuple:
        outgoing, state = ours.update(updates, state, params, **extra)
        like_theirs = lambda u, g: u.astype(g.dtype) if leafwise.is_float(u) and leafwise.is_float(g) else u
        return leafwise.choose(like_theirs, outgoing, updates), state

    return optax.GradientTransformationExtraArgs(ours.init, update)


def from_optax_state(tx: Any, optax_state: Any, params: Params, *, count: Any = None) -> State:
    """The state with which `tx` continues what Optax's counterpart of it began.

    States are matched by their class, in order (`ScaleByAdamState` with `ScaleByAdamState`), slots by their field and
    each parameter's path. So it works for every state whose class has the same name on both sides, inside of
    `MultiSteps`, `partition`, `apply_if_finite` and other wrappers too. Links that remember nothing may differ;
    `inject_hyperparams` may be around one of the two alone. The time is that of Optax's schedules, else that of the
    first state that counts. Arrays of the right dtype are those of Optax's state, not copies. Its random keys stay
    behind: here a key is an argument of the transformation.

    Args:
      tx: the transformation that goes on.
      optax_state: Optax's; or what a checkpoint of it gives back without its classes: lists for tuples, dicts for named
        ones (Orbax), dicts with "0", "1" for tuples (Flax). Then classes are told by their fields.
      params: the parameters, or their shapes.
      count: updates made so far, where nothing in Optax's state counts them, as in that of `sgd(0.1, 0.9)`. None: 0,
        which matters only to a schedule that `tx` has and Optax's had not.

    Raises:
      ValueError: a state or a slot is missing, is left over, or has another shape; its place is named.
    """
    tx = as_transformation("from_optax_state", "tx", tx)
    return to_ours("from_optax_state", tx, optax_state, params, count)


def to_optax_state(tx: Any, state: State, optax_tx: Any, params: Params) -> Any:
    """The state with which an Optax transformation continues what `tx` began: the inverse of `from_optax_state`.

    Random keys are those of `optax_tx.init`: give it another seed, or its noise repeats.

    Args:
      tx: ours, of which the state is.
      state: its state.
      optax_tx: Optax's counterpart, whose `init` says where the slots go.
      params: the parameters, or their shapes.

    Raises:
      ValueError: a state or a slot is missing, is left over, or has another shape; its place is named.
    """
    tx = as_transformation("to_optax_state", "tx", tx)
    return to_theirs("to_optax_state", tx, state, optax_tx.init, params)

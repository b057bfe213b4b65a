"""Between gradtx and Optax: a transformation as Optax's object, and a running job's state in either direction.

Optax is imported in `as_optax` alone, when it is called.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from gradtx import leafwise, paths
from gradtx.clock import ClockState
from gradtx.combine.chain import Chain
from gradtx.core import GradientTransformation, Params, State, as_transformation

# Fields of states that hold another transformation's state, not slots.
INNER = (
    "inner_state",
    "inner_opt_state",
    "inner_states",
    "base_optimizer_state",
    "fast_state",
    "opt_state",
    "adv_state",
)
WRAPPED = ("MaskedState",)  # states that hold another's and nothing else
NOTHING = ("EmptyState", "MaskedNode")
TIME = ("ScaleByScheduleState", "WeightDecaySchedule", "ClockState")  # states that hold the time and nothing else
INJECTED = ("InjectStatefulHyperparamsState", "InjectHyperparamsState")


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


def from_optax_state(tx: Any, optax_state: State, params: Params) -> State:
    """The state with which `tx` continues what Optax's counterpart of it began.

    States are matched by their class, in order (`ScaleByAdamState` with `ScaleByAdamState`), slots by their field and
    each parameter's path. Links that remember nothing may differ; `inject_hyperparams` around Optax's may be left out,
    or be on both sides. The time is that of Optax's schedules, else that of the first state that counts; 0 where
    nothing counted, as then nothing read it.

    Args:
      tx: the transformation that goes on.
      optax_state: Optax's, in its own classes: restore a checkpoint with `optax_tx.init(params)` as the template.
      params: the parameters, or their shapes.

    Raises:
      ValueError: a state or a slot is missing, is left over, or has another shape; it is named.
    """
    tx = as_transformation("from_optax_state", "tx", tx)
    template = jax.eval_shape(tx.init, params)
    return _converted(tx, template, optax_state, "from_optax_state")


def to_optax_state(tx: Any, state: State, optax_tx: Any, params: Params) -> Any:
    """The state with which an Optax transformation continues what `tx` began: the inverse of `from_optax_state`.

    Args:
      tx: ours, of which the state is.
      state: its state.
      optax_tx: Optax's counterpart, whose `init` says where the slots go.
      params: the parameters, or their shapes.

    Raises:
      ValueError: a slot that Optax's state wants is not in ours; it is named.
    """
    tx = as_transformation("to_optax_state", "tx", tx)
    template = jax.eval_shape(optax_tx.init, params)
    pieces = _in_order(tx, state)
    return _filled(template, list(_pieces(pieces)), _time(pieces), "to_optax_state")


def _converted(tx: Any, template: Any, theirs: Any, caller: str) -> Any:
    """Our state, of whose shape `template` is, with the contents of Optax's."""
    if not _holds(template, INJECTED):
        theirs = _without_injection(theirs)
    found = list(_pieces(theirs))
    filled = _filled(_in_order(tx, template), found, _time(theirs), caller)
    if found:
        raise ValueError(f"`{caller}`: nothing in `{tx!r}` remembers what {type(found[0]).__name__} holds.")
    return filled


def _in_order(tx: Any, state: Any) -> Any:
    """Our chain's state with its entries in the order of the links, which a dict that JAX has rebuilt has lost."""
    if isinstance(tx, Chain) and isinstance(state, dict):
        links = dict(zip(tx.names, tx.links, strict=True))
        return {"count": state["count"]} | {n: _in_order(links[n], state[n]) for n in tx.names if n in state}
    inner = getattr(tx, "inner", None)
    for field in INNER if isinstance(inner, GradientTransformation) else ():
        if field in getattr(state, "_fields", ()):
            return state._replace(**{field: _in_order(inner, getattr(state, field))})
    return state


def _pieces(state: Any) -> Iterator[Any]:
    """The states in a state, in order, that remember more than the time."""
    name = type(state).__name__
    if name in WRAPPED:
        yield from _pieces(state[0])
    elif hasattr(state, "_fields"):
        if name not in NOTHING + TIME:
            yield state
    elif isinstance(state, (tuple, list)):
        for x in state:
            yield from _pieces(x)
    elif isinstance(state, dict):
        for x in state.values():
            yield from _pieces(x)


def _filled(template: Any, found: list, time: Any, caller: str) -> Any:
    """The template with its slots taken from the states found, which are used up in order."""
    name = type(template).__name__
    if name in NOTHING:
        return template
    if name in TIME:
        return type(template)(_fitted(template[0], time, f"{name}.count", caller))
    if name in WRAPPED:
        return type(template)(_filled(template[0], found, time, caller))
    if hasattr(template, "_fields"):
        place = next((i for i, x in enumerate(found) if type(x).__name__ == name), None)
        if place is None:
            names = ", ".join(type(x).__name__ for x in found) or "nothing more"
            raise ValueError(f"`{caller}`: no {name} to take; there is {names}.")
        state = found.pop(place)
        return type(template)(*[_field(template, state, field, caller) for field in template._fields])
    if isinstance(template, dict):
        count = {"count": _fitted(template["count"], time, "count", caller)} if "count" in template else {}
        return count | {k: _filled(x, found, time, caller) for k, x in template.items() if k not in count}
    if isinstance(template, (tuple, list)):
        return type(template)(_filled(x, found, time, caller) for x in template)
    return template


def _field(template: Any, state: Any, field: str, caller: str) -> Any:
    wanted, name = getattr(template, field), type(template).__name__
    if not hasattr(state, field):
        raise ValueError(f"`{caller}`: {name} has a field {field!r} here, and {list(state._fields)} there.")
    given = getattr(state, field)
    if field in INNER:
        if isinstance(wanted, dict) and isinstance(given, dict) and "count" not in wanted:  # a partition's, by label
            return {label: _inner(x, given[label], None, caller) for label, x in wanted.items()}
        return _inner(wanted, given, getattr(state, "gradient_step", None), caller)
    return _fitted(wanted, given, f"{name}.{field}", caller)


def _inner(template: Any, state: Any, time: Any, caller: str) -> Any:
    inner_time = _time(state)
    return _filled(template, list(_pieces(state)), time if inner_time is None else inner_time, caller)


def _fitted(template: Any, given: Any, what: str, caller: str) -> Any:
    """One slot: each leaf of the template from the leaf at the same path, in the template's dtype."""
    if jax.tree.structure(template) == jax.tree.structure(0) and not jax.tree.leaves(given):
        return jnp.zeros(template.shape, template.dtype)  # a time that nothing counted
    there = dict(zip(paths.names(given), jax.tree.leaves(given), strict=True))
    names, leaves = paths.names(template), []
    for name, leaf in zip(names, jax.tree.leaves(template), strict=True):
        x = there.get(name)
        if x is None or jnp.shape(x) != leaf.shape:
            if leaf.shape == (1,):  # what Optax puts where Adafactor uses no slot
                x = jnp.zeros(leaf.shape, leaf.dtype)
            else:
                has = "is not there" if x is None else f"has shape {jnp.shape(x)}"
                raise ValueError(f"`{caller}`: {what}[{name!r}] should have shape {leaf.shape} and {has}.")
        leaves.append(x if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(x, leaf.dtype))
    extra = {name for name in set(there) - set(names) if jnp.shape(there[name]) != (1,)}
    if extra:
        raise ValueError(f"`{caller}`: {what} has no place for the leaf {min(extra)!r}.")
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def _time(state: Any) -> Any:
    """The time in a state: a chain's of ours, that of a schedule, else the first count; None."""
    if isinstance(state, dict) and "count" in state:
        return state["count"]
    is_state = lambda x: hasattr(x, "_fields") and type(x).__name__ not in WRAPPED
    states = [x for x in jax.tree.leaves(state, is_leaf=is_state) if "count" in getattr(x, "_fields", ())]
    schedules = [x for x in states if type(x).__name__ in TIME]
    return next((x.count for x in schedules + states), None)


def _holds(state: Any, kinds: tuple[str, ...]) -> bool:
    is_one = lambda x: type(x).__name__ in kinds
    return any(map(is_one, jax.tree.leaves(state, is_leaf=is_one)))


def _without_injection(state: Any) -> Any:
    """The state with what `inject_hyperparams` wraps, and its time, in the place of its own."""
    is_one = lambda x: type(x).__name__ in INJECTED
    inside = lambda x: (ClockState(x.count), _without_injection(x.inner_state)) if is_one(x) else x
    return jax.tree.map(inside, state, is_leaf=is_one) if _holds(state, INJECTED) else state

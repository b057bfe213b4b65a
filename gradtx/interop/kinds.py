"""What the nodes of a state are, in gradtx's classes, in Optax's, or without any, as a checkpoint gives them back."""

from collections import namedtuple
from collections.abc import Iterator
from typing import Any

import jax

from gradtx.combine.chain import Chain
from gradtx.combine.inject import Injected
from gradtx.core import members

# Fields of states that hold another transformation's state, not slots. The last two live by a time of their own.
INNER = (
    "inner_state",
    "inner_opt_state",
    "inner_states",
    "base_optimizer_state",
    "fast_state",
    "opt_state",
    "adv_state",
)
WRAPPED = ("MaskedState", "SplitRealAndImaginaryState")  # states that hold another's and nothing else
# States that hold nothing, or a key, which is no state here.
NOTHING = ("EmptyState", "MaskedNode", "DifferentiallyPrivateAggregateState")
# States that hold the time and nothing that is state here.
TIME = ("ScaleByScheduleState", "WeightDecaySchedule", "ClockState", "AddNoiseState")
GROUPS = ("PartitionState",)
INJECTED = ("InjectStatefulHyperparamsState", "InjectHyperparamsState")  # the second, of Optax before 0.1.9
NOT_THE_TIME = ("ApplyEvery", "ReduceLROnPlateauState")  # their counts begin anew
UNNAMED = "Unnamed"  # a state of a class that is not known


def is_state(x: Any) -> bool:
    """Whether it is a state of a class of its own."""
    return isinstance(x, tuple) and hasattr(x, "_fields")


def kind(x: Any) -> str:
    """What a state is called."""
    if isinstance(x, dict):
        return "a dict of " + ", ".join(map(str, x))
    if type(x).__name__ == UNNAMED:
        return "a state of " + ", ".join(x._fields)
    return "an array" if hasattr(x, "dtype") else type(x).__name__


def is_like(x: Any, template: Any) -> bool:
    """Whether a state is of the template's class; where its class is not known, whether it has its fields."""
    if type(x).__name__ == UNNAMED:
        return is_state(template) and {*x._fields} == {*template._fields}
    name, wanted = type(x).__name__, type(template).__name__
    if isinstance(x, dict) or hasattr(x, "dtype"):
        return kind(x) == kind(template)
    return name == wanted or (name in INJECTED and wanted in INJECTED)


def is_chain(x: Any) -> bool:
    """Whether it is a dict of links' states, not one state of arrays."""
    return isinstance(x, dict) and not any(hasattr(y, "dtype") for key, y in x.items() if key != "count")


def links(x: Any) -> Iterator[Any]:
    """The states of the links, of what may be a chain's state."""
    if isinstance(x, dict):
        yield from (y for key, y in x.items() if key != "count")
    else:
        yield from x


def pieces(x: Any) -> Iterator[Any]:
    """The states in a state, in order, that remember more than the time; not those inside of others."""
    name = type(x).__name__
    if is_state(x):
        if name in WRAPPED:
            yield from pieces(x[0])
        elif name not in NOTHING + TIME:
            yield x
    elif is_chain(x) or type(x) in (tuple, list):
        for y in links(x):
            yield from pieces(y)
    elif jax.tree.leaves(x):
        yield x


def ungrouped(found: list) -> bool:
    """Puts the states of its groups in the place of the first partition, if there is one."""
    at = next((i for i, x in enumerate(found) if type(x).__name__ in GROUPS), None)
    if at is not None:
        found[at : at + 1] = [y for group in found[at].inner_states.values() for y in pieces(group)]
    return at is not None


def time(x: Any) -> Any:
    """The time in a state: a chain's of ours, that of a schedule, else the first count; None."""
    return next((count for sure in (True, False) for is_sure, count in _times(x) if is_sure == sure), None)


def _times(x: Any) -> Iterator[tuple[bool, Any]]:
    name = type(x).__name__
    if is_state(x):
        if name in WRAPPED:
            yield from _times(x[0])
        elif name in GROUPS:
            for y in x.inner_states.values():
                yield from _times(y)
        elif (count := own_time(x)) is not None and name not in NOT_THE_TIME:
            yield name in TIME, count
    elif is_chain(x) or type(x) in (tuple, list):
        if isinstance(x, dict) and "count" in x:
            yield True, x["count"]
        for y in links(x):
            yield from _times(y)


def own_time(x: Any) -> Any:
    """A state's count of updates; None."""
    return next((getattr(x, name) for name in ("gradient_step", "count", "step", "t") if name in x._fields), None)


def holds_injected(x: Any) -> bool:
    """Whether a state of `inject_hyperparams` is in it."""
    is_one = lambda y: type(y).__name__ in INJECTED
    return any(map(is_one, jax.tree.leaves(x, is_leaf=is_one)))


def without_injection(x: Any) -> Any:
    """The state with what `inject_hyperparams` wraps, and its time, in the place of its own."""
    if type(x).__name__ in INJECTED:
        return (namedtuple("ClockState", "count")(x.count), without_injection(x.inner_state))
    return within(without_injection, x)


def within(f: Any, x: Any) -> Any:
    """The state with `f` of each state that lies directly in it; in the order in which they are there."""
    if is_state(x):
        held = {field: _held(f, field, getattr(x, field)) for field in x._fields if field in INNER}
        return x._replace(**held)
    if is_chain(x):
        return {key: y if key == "count" else f(y) for key, y in x.items()}
    return type(x)(map(f, x)) if type(x) in (tuple, list) else x


def _held(f: Any, field: str, x: Any) -> Any:
    return {label: f(y) for label, y in x.items()} if field == "inner_states" else f(x)


def outline(x: Any) -> Any:
    """A state's shapes. JAX would sort the dicts in it, whose order is that of the links."""
    if is_state(x):
        return type(x)(*map(outline, x))
    if isinstance(x, dict):
        return type(x)((key, outline(y)) for key, y in x.items())
    if type(x) in (tuple, list):
        return type(x)(map(outline, x))
    return jax.tree.map(lambda y: jax.ShapeDtypeStruct(jax.numpy.shape(y), jax.dtypes.result_type(y)), x)


def in_order(tx: Any, x: Any) -> Any:
    """The state of `tx` with its chains' links in order, which a dict that JAX has rebuilt has lost."""
    if isinstance(tx, Chain) and isinstance(x, dict):
        member = dict(zip(tx.names, tx.links, strict=True))
        rebuilt = {name: in_order(member[name], x[name]) for name in tx.names if name in x}
        return {key: y for key, y in x.items() if key not in rebuilt} | rebuilt
    inside = [tx.inner] if isinstance(tx, Injected) else members(tx)
    if not is_state(x) or not inside:
        return x
    if "inner_states" in x._fields:
        by_label = getattr(tx, "transforms", {})
        inner = {label: type(y)(in_order(by_label.get(label), y[0])) for label, y in x.inner_states.items()}
        return x._replace(inner_states=inner)
    fields = [field for field in x._fields if field in INNER]
    return x._replace(**{field: in_order(part, getattr(x, field)) for field, part in zip(fields, inside, strict=False)})


def names(tx: Any) -> dict[str, int]:
    """The names of all links in a transformation, by their place."""
    inside = [tx.inner] if isinstance(tx, Injected) else members(tx)
    found = list(tx.names) if isinstance(tx, Chain) else []
    every = found + [name for part in inside for name in names(part)]
    return {name: place for place, name in enumerate(dict.fromkeys(every))}


def ranked(x: Any, rank: dict[str, int]) -> Any:
    """Optax's state with the links of its named chains in the order of their names."""
    if type(x) is dict and is_chain(x):
        x = dict(sorted(x.items(), key=lambda link: rank.get(link[0], len(rank))))
    return within(lambda y: ranked(y, rank), x)


def named(x: Any, template: Any) -> Any:
    """A state whose classes a checkpoint has lost, lists for tuples and dicts for named ones, with what is known of
    them: a dict whose keys are the fields of a class in the template is a state, and one that counts.
    """
    known = {frozenset(names): UNNAMED for names in _fields(template)} | {
        frozenset(["inner_state"]): "MaskedState",
        frozenset(["inner_states"]): "PartitionState",
        frozenset(["count"]): "ClockState",
        frozenset(["count", "rng_key"]): "AddNoiseState",
        frozenset(["count", "hyperparams", "inner_state"]): "InjectHyperparamsState",
        frozenset(["count", "hyperparams", "hyperparams_states", "inner_state"]): "InjectStatefulHyperparamsState",
    }

    def walk(x):
        if isinstance(x, dict) and x and all(str(key).isdecimal() for key in x):  # Flax's form of a tuple
            return [walk(x[key]) for key in sorted(x, key=int)]
        if isinstance(x, dict) and (frozenset(x) in known or "count" in x):
            x = namedtuple(known.get(frozenset(x), UNNAMED), list(x))(**x)
        return () if x is None else within(walk, x)

    return walk(x)


def has_classes(x: Any) -> bool:
    """Whether a state is in classes of its own."""
    return is_state(x) or (isinstance(x, (dict, tuple, list)) and any(map(has_classes, links(x))))


def _fields(x: Any) -> Iterator[tuple[str, ...]]:
    """The fields of every class of states in it."""
    if is_state(x):
        yield x._fields
    if isinstance(x, (dict, tuple, list)):
        for y in x.values() if isinstance(x, dict) else x:
            yield from _fields(y)

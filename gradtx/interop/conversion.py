"""A state in the classes of one library, filled with what is in another's."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gradtx import paths
from gradtx.core import Params
from gradtx.interop import kinds

# Slots that are constants, which gradtx does not remember.
CONSTANTS = (("MuonState", "ns_coeffs"),)
FILLERS = {"FactoredState": (1,), "GaLoreState": (0, 0)}  # the shapes that Optax has where gradtx has None


def to_ours(caller: str, tx: Any, state: Any, params: Params, count: Any) -> Any:
    """The state of `tx` with the contents of Optax's.

    Args:
      caller: the function that errors name.
      count: the time, where nothing counts it.
    """
    template = kinds.in_order(tx, _template(tx.init, params))
    if not kinds.has_classes(state):
        state = kinds.ranked(kinds.named(state, template), kinds.names(tx))
    return _converted(caller, tx.init, template, state, params, count)


def to_theirs(caller: str, tx: Any, state: Any, init: Callable, params: Params) -> Any:
    """The state that Optax's `init` would make, with the contents of that of `tx`."""
    return _converted(caller, init, _template(init, params), kinds.in_order(tx, state), params, None)


def _converted(caller: str, init: Callable, template: Any, state: Any, params: Params, count: Any) -> Any:
    if not kinds.holds_injected(template):
        state = kinds.without_injection(state)
    filled = _Filling(caller).whole(template, state, _first(kinds.time(state), count), "")
    return _with_constants(filled, init, params)


def _first(*times: Any) -> Any:
    """The first that is known; None."""
    return next((x for x in times if x is not None), None)


def _template(init: Callable, params: Params) -> Any:
    """The shapes of the state that `init` makes, in dicts as they are made: JAX sorts them."""
    made = []
    jax.eval_shape(lambda p: made.append(kinds.outline(init(p))), params)
    return made[0]


def _with_constants(filled: Any, init: Callable, params: Params) -> Any:
    """The state with what was left as a shape as `init` makes it. No other slot is allocated."""
    leaves, structure = jax.tree.flatten(filled)
    left = [i for i, x in enumerate(leaves) if isinstance(x, jax.ShapeDtypeStruct)]
    if left:
        known = lambda p: jnp.zeros(p.shape, p.dtype) if isinstance(p, jax.ShapeDtypeStruct) else p
        made = jax.jit(lambda: [jax.tree.leaves(init(jax.tree.map(known, params)))[i] for i in left])()
        for i, x in zip(left, made, strict=True):
            leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


class _Filling:
    """Fills a template. Each method is given the place where it is, for errors."""

    def __init__(self, caller: str) -> None:
        self.caller = caller

    def error(self, place: str, what: str) -> ValueError:
        return ValueError(f"`{self.caller}`: {place.lstrip('.') or 'the state'}: {what}")

    def whole(self, template: Any, state: Any, time: Any, place: str) -> Any:
        """The template with the states in a state, all of which must find a place."""
        found = list(kinds.pieces(state))
        filled = self.fill(template, found, time, place)
        while found:
            if kinds.ungrouped(found):  # groups that remember nothing
                continue
            raise self.error(
                place,
                f"there is no place for {kinds.kind(found[0])}. Convert between two transformations of the same links, "
                "and add or leave out links afterwards.",
            )
        return filled

    def fill(self, template: Any, found: list, time: Any, place: str) -> Any:
        """The template with the states found, which are used up in order."""
        name = type(template).__name__
        if kinds.is_state(template):
            if name in kinds.NOTHING:
                return template
            if name in kinds.TIME:
                return template._replace(count=self.clock(template.count, time))
            if name in kinds.WRAPPED:
                return type(template)(self.fill(template[0], found, time, f"{place}.inner_state"))
        elif kinds.is_chain(template):
            count = {"count": self.clock(template["count"], time)} if "count" in template else {}
            inside = {key: self.fill(x, found, time, f"{place}.{key}") for key, x in template.items() if key != "count"}
            return type(template)(count | inside)
        elif type(template) in (tuple, list):
            return type(template)(self.fill(x, found, time, f"{place}[{i}]") for i, x in enumerate(template))
        elif not jax.tree.leaves(template):
            return template
        return self.taken(template, found, time, place)

    def taken(self, template: Any, found: list, time: Any, place: str) -> Any:
        """The first state of the template's kind."""
        at = next((i for i, x in enumerate(found) if kinds.is_like(x, template)), None)
        if at is not None:
            given = found.pop(at)
            if not kinds.is_state(template):
                return self.slot(template, given, place)
            place = f"{place}.{type(template).__name__}"
            return type(template)(*[self.field(template, given, name, time, place) for name in template._fields])
        if kinds.ungrouped(found):
            return self.taken(template, found, time, place)
        if type(template).__name__ in kinds.GROUPS:  # groups on this side alone
            groups = template.inner_states.items()
            return type(template)({label: self.fill(x, found, time, f"{place}[{label!r}]") for label, x in groups})
        if type(template).__name__ in kinds.INJECTED:
            return self.injected(template, found, time, place)
        names = ", ".join(map(kinds.kind, found)) or "nothing more"
        raise self.error(
            place,
            f"no {kinds.kind(template)} to take; there is {names}. Convert between two transformations of the same "
            "links, and add or leave out links afterwards.",
        )

    def injected(self, template: Any, found: list, time: Any, place: str) -> Any:
        """What `inject_hyperparams` remembers, where the other had none: its numbers are those that it was given."""
        return template._replace(
            count=self.clock(template.count, time),
            inner_state=self.fill(template.inner_state, found, time, f"{place}.inner_state"),
            **self.clocks(template, time),
        )

    def clocks(self, template: Any, time: Any) -> dict[str, Any]:
        """The states of plain schedules at a time; others stay."""
        states = getattr(template, "hyperparams_states", {})
        at = lambda x: x._replace(count=self.clock(x.count, time)) if type(x).__name__ == "WrappedScheduleState" else x
        return {"hyperparams_states": {name: at(x) for name, x in states.items()}} if states else {}

    def field(self, template: Any, given: Any, name: str, time: Any, place: str) -> Any:
        wanted, own = getattr(template, name), kinds.own_time(given)
        if name == "hyperparams_states" or name == "hyperparams":
            return self.numbers(wanted, given, name, template, place)
        if name not in given._fields:
            raise self.error(place, f"it has a field {name!r} on one side, and {list(given._fields)} on the other.")
        x, place = getattr(given, name), f"{place}.{name}"
        if name == "inner_states":
            return self.groups(wanted, x, time, place)
        if name in kinds.INNER:
            around = None if name in kinds.INNER[-2:] else time
            return self.whole(wanted, x, _first(kinds.time(x), own, around), place)
        if (type(template).__name__, name) in CONSTANTS:
            return wanted
        return self.slot(wanted, x, place, FILLERS.get(type(template).__name__))

    def groups(self, wanted: dict, given: dict, time: Any, place: str) -> dict:
        """The states of a partition's groups, by label; a checkpoint has made strings of the labels."""
        by_name = {str(label): x for label, x in given.items()}
        if {*map(str, wanted)} != {*by_name}:
            raise self.error(place, f"the labels are {list(wanted)}, and those of the other state {list(given)}.")
        group = lambda label, x: self.whole(wanted[label], x, _first(kinds.time(x), time), f"{place}[{label!r}]")
        return {label: group(label, by_name[str(label)]) for label in wanted}

    def numbers(self, wanted: dict, given: Any, name: str, template: Any, place: str) -> dict:
        """Injected hyperparameters, or the states of their schedules. What is compiled in on one side stays as it is
        given there, and what is a schedule on one side alone begins at the time.
        """
        there = getattr(given, name, {})
        default = self.clocks(template, given.count).get(name, wanted)
        take = lambda key: self.slot(wanted[key], there[key], f"{place}.{name}[{key!r}]")
        return {key: take(key) if key in there else default[key] for key in wanted}

    def clock(self, template: Any, time: Any) -> Any:
        """The time, in memory of its own; 0 where nothing counted."""
        return jnp.array(0 if time is None else time, template.dtype)

    def slot(self, template: Any, given: Any, place: str, filler: Any = None) -> Any:
        """Each leaf of the template from the leaf at the same path, in the template's dtype."""
        there = dict(zip(paths.names(given), jax.tree.leaves(given), strict=True))
        is_filler = lambda x: jnp.shape(x) == filler
        names, leaves = paths.names(template), []
        for name, leaf in zip(names, jax.tree.leaves(template), strict=True):
            x, at = there.pop(name, None), f"{place}[{name!r}]" if name else place
            if x is not None and jnp.shape(x) == leaf.shape:
                leaves.append(x if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else jnp.asarray(x, leaf.dtype))
            elif x is None and is_filler(leaf):
                leaves.append(jnp.zeros(leaf.shape, leaf.dtype))
            else:
                has = "is not there" if x is None else f"has shape {jnp.shape(x)}"
                raise self.error(at, f"it should have shape {leaf.shape} and {has}. {SAME_PARAMS}")
        extra = [name for name, x in there.items() if not is_filler(x)]
        if extra:
            raise self.error(place, f"there is no place for the leaf {min(extra)!r}. {SAME_PARAMS}")
        return jax.tree.unflatten(jax.tree.structure(template), leaves)


SAME_PARAMS = "Give the parameters, and the masks, that the state was made for."

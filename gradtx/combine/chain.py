"""One transformation after another."""

import itertools
from collections.abc import Sequence
from typing import Any

from gradtx.clock import ClockState, start, tick, time
from gradtx.combine.masking import MaskedState
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.paths import MismatchError
from gradtx.recipe import Recipe
from gradtx.value import part, static


def chain(*links: GradientTransformation | Any) -> GradientTransformation:
    """Applies transformations in order: each receives the updates that the one before it returned.

    Chains within chains are flattened, so `chain(clip(1.0), adamw(1e-3))` is one chain of four links. Its state is a
    dict: "count", the updates made so far, and for each link that remembers more than the time, its state under its
    name ("scale_by_adam"; a second one is "scale_by_adam_2"; what a `named_chain` named keeps its name). A link that
    remembers nothing, or only the time, does not appear; it reads the chain's count. So adding a clip, or a schedule in
    place of a number, leaves the structure of the state, and every checkpoint, as it was. Floating leaves are widened
    once, for all links.

    Args:
      *links: transformations, or foreign `(init, update)` pairs such as Optax's. None at all: the identity.

    State: 4 bytes, and the links' states. Reads: what the links read.
    """
    members = [as_transformation("chain", f"link {i}", link) for i, link in enumerate(links)]
    wanted = []
    for link in members:
        if not isinstance(link, Chain):
            wanted.append((link.name, False, link))
        elif link.names == _generated(link.links):
            wanted += [(inner.name, False, inner) for inner in link.links]
        else:
            wanted += [(name, True, inner) for name, inner in zip(link.names, link.links, strict=True)]
    names, given, flat = zip(*wanted, strict=True) if wanted else ((), (), ())
    return Chain(_distinct(names, given), flat)


def named_chain(*links: tuple[str, GradientTransformation | Any]) -> GradientTransformation:
    """A `chain` whose links are named by the caller: `named_chain(("clip", clip(1.0)), ("adam", adam(1e-3)))`.

    A link that is a chain stays one, its state a dict under the name given to it.

    Raises:
      ValueError: a name is used twice, or is "count", which is the chain's own.
    """
    names = tuple(name for name, _ in links)
    for name in names:
        if not isinstance(name, str) or name == "count" or names.count(name) > 1:
            raise ValueError(f'`named_chain`: names must be different strings, and not "count", got {names!r}.')
    return Chain(names, tuple(as_transformation("named_chain", f"link {name!r}", link) for name, link in links))


@transformation
class Chain(GradientTransformation):
    """What `chain` and `named_chain` return; `links` and `names` can be read."""

    names: tuple[str, ...] = static()
    links: tuple[GradientTransformation, ...] = part()

    @property
    def name(self) -> str:
        return "chain"

    def init(self, params):
        states = {name: link.bare_init(params) for name, link in zip(self.names, self.links, strict=True)}
        return {"count": start()} | {name: state for name, state in states.items() if not _remembers_nothing(state)}

    def update(self, updates, state, params=None, **extra):
        if unknown := set(state) - {"count", *self.names}:
            raise ValueError(
                f"`chain`: the state has {sorted(unknown)}, but the links are {list(self.names)}: "
                "it was made by another transformation."
            )
        new_state = {"count": tick(state["count"])}
        for name, link in zip(self.names, self.links, strict=True):
            link_state = state[name] if name in state else link.state_at(state["count"])
            try:
                with time(state["count"]):
                    updates, link_state = link.bare_update(updates, link_state, params, **extra)
            except MismatchError as error:
                raise ValueError(f"`{link.name}`: {error}.") from error.__cause__
            if name in state:
                new_state[name] = link_state
        return updates, new_state

    def eval_params(self, state, params):
        for name, link in zip(self.names, self.links, strict=True):
            params = link.eval_params(state[name] if name in state else link.state_at(state["count"]), params)
        return params

    def recipe(self) -> Any:
        if self.names == _generated(self.links):
            return Recipe("chain", self.links)
        return Recipe("named_chain", tuple(zip(self.names, self.links, strict=True)))


def _generated(links: tuple[GradientTransformation, ...]) -> tuple[str, ...]:
    """The names that `chain` gives."""
    return _distinct([link.name for link in links], [False] * len(links))


def _distinct(names: Sequence[str], given: Sequence[bool]) -> tuple[str, ...]:
    """Each name, or the first free one of name_2, name_3, ...; those given by the caller come first."""
    reserved = {name for name, is_given in zip(names, given, strict=True) if is_given}
    result = []
    for name, is_given in zip(names, given, strict=True):
        taken = {"count", *result} if is_given else {"count", *result, *reserved}
        candidates = (name if n == 1 else f"{name}_{n}" for n in itertools.count(1))
        result.append(next(x for x in candidates if x not in taken and (x == name or x not in reserved)))
    return tuple(result)


def _remembers_nothing(state: Any) -> bool:
    if isinstance(state, MaskedState):
        return _remembers_nothing(state.inner_state)
    return isinstance(state, ClockState) or (isinstance(state, tuple) and not state)

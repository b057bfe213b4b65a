"""One transformation after another."""

from typing import Any

from gradtx.clock import ClockState, start, tick
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.paths import MismatchError
from gradtx.value import part, static


def chain(*links: Any) -> GradientTransformation:
    """Applies transformations in order: each receives the updates that the one before it returned.

    Chains within chains are flattened, so `chain(clip(1.0), adamw(1e-3))` is one chain of four links. Its state is a
    dict: "count", the updates made so far, and for each link that remembers more than the time, its state under its
    name ("scale_by_adam"; a second one is "scale_by_adam_2"). A link that remembers nothing, or only the time, does
    not appear; it reads the chain's count. So adding a clip, or a schedule in place of a number, leaves the
    structure of the state, and every checkpoint, as it was. Floating leaves are widened once, for all links.

    Args:
      *links: transformations, or foreign `(init, update)` pairs such as Optax's. None at all: the identity.

    State: 4 bytes, and the links' states. Reads: what the links read.
    """
    members = [as_transformation("chain", f"link {i}", link) for i, link in enumerate(links)]
    flat = [
        pair
        for link in members
        for pair in (zip(link.names, link.links, strict=True) if isinstance(link, Chain) else [(link.name, link)])
    ]
    return Chain(_distinct([name for name, _ in flat]), tuple(link for _, link in flat))


def named_chain(*links: tuple[str, Any]) -> GradientTransformation:
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
            link_state = state.get(name, ClockState(state["count"]))
            try:
                updates, link_state = link.bare_update(updates, link_state, params, **extra)
            except MismatchError as error:
                raise ValueError(f"`{link.name}`: {error}.") from error.__cause__
            if name in state:
                new_state[name] = link_state
        return updates, new_state

    def __repr__(self) -> str:
        if self.names == _distinct([link.name for link in self.links]):
            return f"chain({', '.join(map(repr, self.links))})"
        return f"named_chain({', '.join(map(repr, zip(self.names, self.links, strict=True)))})"


def _distinct(names: list[str]) -> tuple[str, ...]:
    """Each name, the second one of a kind as `name_2`. Names from a chain within are counted anew."""
    seen = {"count": 1}  # the chain's own
    result = []
    for name in names:
        stem, _, number = name.rpartition("_")
        name = stem if number.isdigit() and stem in seen else name
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
    return tuple(result)


def _remembers_nothing(state: Any) -> bool:
    return isinstance(state, ClockState) or (isinstance(state, tuple) and not state)

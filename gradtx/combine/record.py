"""What transformations say of themselves while they run, and who hears it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from jax import Array
from jax.extend.core import get_opaque_trace_state

from gradtx import paths


class Said(NamedTuple):
    """One number that a transformation recorded."""

    name: str
    value: Array
    leaves: frozenset | None  # the leaves that it is about, as `paths.all_keys` calls them; None: all


class _Listener(NamedTuple):
    trace: Any  # where it listens: a number from a branch or a loop traced within is not one here
    said: list[Said]


_listener: ContextVar[_Listener | None] = ContextVar("listener", default=None)


def record(extra: dict[str, Any] | None = None, **measured: Callable[[], Any]) -> None:
    """Tells the `monitor` around this transformation, where there is one, numbers about this update.

    To be called in `update` itself: what is recorded in a branch or a loop that JAX traces on its own (`jax.lax.cond`)
    is not heard.

    Args:
      extra: the keyword arguments of `update`; not needed.
      **measured: functions that compute them, called only for a monitor: `learning_rate`, float scalar; `clipped` and
        `skipped`, bool scalars.
    """
    if (listener := _audible()) is not None:
        listener.said.extend(Said(name, measure(), None) for name, measure in measured.items())


@contextmanager
def listening() -> Iterator[list[Said]]:
    """Within it, what transformations record is added to a list, and is not heard further out."""
    said: list[Said] = []
    token = _listener.set(_Listener(get_opaque_trace_state(), said))
    try:
        yield said
    finally:
        _listener.reset(token)


def repeat(said: list[Said]) -> None:
    """Records what was heard by `listening`."""
    if (listener := _audible()) is not None:
        listener.said.extend(said)


@contextmanager
def speaking_of(params: Any) -> Iterator[None]:
    """Within it, what transformations record is about the leaves of `params` alone."""
    if (listener := _audible()) is None:
        yield
        return
    leaves = frozenset(paths.all_keys(params))
    with listening() as said:
        yield
    listener.said.extend(x if x.leaves is not None else x._replace(leaves=leaves) for x in said)


def is_heard() -> bool:
    """Whether anyone listens here."""
    return _audible() is not None


def _audible() -> _Listener | None:
    listener = _listener.get()
    return listener if listener is not None and listener.trace == get_opaque_trace_state() else None

"""Which programs XLA compiles while a block runs. A function's own cache is no witness: others drive it out."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax

EVENT = "/jax/core/compile/backend_compile_duration"


@contextmanager
def compilations() -> Iterator[list[str]]:
    """A list that has one item for each program compiled in the block so far."""
    found: list[str] = []
    count = lambda event, duration_secs, **_: found.append(event) if event == EVENT else None
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_duration_listener(count)

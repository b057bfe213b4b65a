"""Left out: Optax's assignment problems. The module is there so that programs which import it can be imported."""

from typing import Any


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"`gradtx.assignment` holds nothing: {name!r} is no gradient transformation. Take it from optax.assignment, or "
        "scipy.optimize.linear_sum_assignment."
    )

"""Left out: Optax's perturbed functions. The module is there so that programs which import it can be imported."""

from typing import Any


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"`gradtx.perturbations` holds nothing: {name!r} is no transformation. Take it from optax.perturbations."
    )

"""Names for annotations, as Optax has them. They say what is meant; nothing checks them."""

from collections.abc import Callable
from typing import Annotated, Any, Protocol, TypeAlias

from jax.typing import ArrayLike

ArrayTree: TypeAlias = Any  # pytree of arrays
PRNGKey: TypeAlias = Any  # a key of `jax.random`
PyTree: TypeAlias = Any
Shape: TypeAlias = tuple[int, ...]
Params: TypeAlias = ArrayTree  # leaves that are not floating or complex are passed over
Updates: TypeAlias = ArrayTree  # the parameters' structure and shapes; None where a parameter has no gradient
OptState: TypeAlias = ArrayTree  # owned by one transformation
# Slots of a state, by what is in them: what `compress_state` stores in fewer bytes.
Means: TypeAlias = Annotated[Params, "means"]  # averages or sums of gradients or steps, of either sign
Squares: TypeAlias = Annotated[Params, "squares"]  # averages or sums of squares or magnitudes, not negative
Points: TypeAlias = Annotated[Params, "points"]  # other values of the parameters
ScalarOrSchedule: TypeAlias = ArrayLike | Callable[[Any], ArrayLike]  # a number, or a schedule: step -> number
MaskOrFn: TypeAlias = Any  # what `add_decayed_weights` takes as its mask


class TransformInitFn(Protocol):
    """The type of `init`."""

    def __call__(self, params: Params) -> OptState:
        """The state before the first update."""
        ...


class TransformUpdateFn(Protocol):
    """The type of `update` without extra arguments."""

    def __call__(self, updates: Updates, state: OptState, params: Params | None = None) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""
        ...


class TransformUpdateExtraArgsFn(Protocol):
    """The type of `update`, which takes any keyword argument."""

    def __call__(
        self, updates: Updates, state: OptState, params: Params | None = None, **extra_args: Any
    ) -> tuple[Updates, OptState]:
        """The transformed updates and the next state."""
        ...

"""A factor for each group of parameters."""

from typing import Any

import jax

from gradtx import leafwise, paths
from gradtx.clock import ClockState, Hyperparameter, tick
from gradtx.combine.masking import as_labels, labelled
from gradtx.core import GradientTransformation, transformation
from gradtx.transforms.scale import scale
from gradtx.value import number, part, static

FINITE = number().metadata["convert"]


def _multipliers(owner: str, name: str, multipliers: Any) -> dict[Any, Hyperparameter]:
    if not hasattr(multipliers, "items"):
        raise TypeError(f"`{owner}`: {name} must be a dict from labels to numbers, got {multipliers!r}.")
    return {label: FINITE(owner, f"{name}[{label!r}]", x) for label, x in multipliers.items()}


@transformation
class scale_by_group(GradientTransformation):
    """Multiplies the updates of each group of parameters by a number of its own.

        chain(adamw(1e-3), scale_by_group({"embedding": 0.1, "head": 10.0, "rest": 1.0}, groups))

    u = m g,    m = multipliers[label of the leaf]

    Behind a method it multiplies the learning rate and the weight decay with it, as a learning rate of a group does in
    PyTorch; the method's state is one for all groups, where a `partition` has one for each.

    Args:
      multipliers: by label; numbers or schedules. 0 keeps a group where it is, but for NaN: `freeze` does that.
      param_labels: as in `partition`. `gradtx.labels` makes them.

    State: the time. Reads: updates and, where given, the params' names and shapes.
    Raises:
      ValueError: a parameter has no label, or one that `multipliers` lacks; it is named.
    """

    multipliers: Any = part(convert=_multipliers)
    param_labels: Any = static(convert=as_labels)

    def update(self, updates, state, params=None, **extra):
        like = updates if params is None else params
        rows = labelled(self.param_labels, like, self.name)
        for name, label in rows:
            if label not in self.multipliers:
                known = ", ".join(map(repr, self.multipliers))
                raise ValueError(f"`{self.name}`: the label {label!r} of {name!r} is not one of multipliers', {known}.")
        structure = jax.tree.structure(paths.plain(like))
        outgoing = updates
        for label, multiplier in self.multipliers.items():
            mask = structure.unflatten([mine == label for _, mine in rows])
            group = leafwise.choose(lambda g, chosen: g if chosen else None, updates, mask)
            scaled, _ = scale(multiplier).bare_update(group, state, None)
            outgoing = leafwise.choose(lambda old, new: old if new is None else new, outgoing, scaled)
        return outgoing, ClockState(tick(state.count))

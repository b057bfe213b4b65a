"""Groups of parameters, each with a transformation of its own."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from gradtx import leafwise, paths
from gradtx.combine.masking import MaskedState, as_labels, kept, kept_extra, labelled, update_part
from gradtx.core import GradientTransformation, Params, State, as_transformation, transformation
from gradtx.value import flag, part, state, static


@state
class PartitionState(NamedTuple):
    """State of `partition`."""

    inner_states: dict[Any, State]  # by label, a `MaskedState`


MultiTransformState = PartitionState  # its older name


def _transforms(owner: str, name: str, transforms: Any) -> dict:
    if not hasattr(transforms, "items"):
        raise TypeError(f"`{owner}`: {name} must be a dict from labels to transformations, got {transforms!r}.")
    return {label: as_transformation(owner, f"{name}[{label!r}]", tx) for label, tx in transforms.items()}


@transformation
class partition(GradientTransformation):
    """Applies to each group of parameters a transformation of its own.

        partition({"matrices": lion(1e-4), "rest": adamw(1e-3), "frozen": set_to_zero()}, labels)

    A transformation sees its group alone: `clip_by_global_norm` in a group bounds the norm of that group. To bound
    the norm of all parameters, chain it before the partition. A group whose transformation remembers nothing costs no
    state.

    Args:
      transforms: by label.
      param_labels: a pytree of labels with the parameters' structure, or a prefix of it; compared by path, so that the
        container does not matter. Or a function from the parameters' shapes (`jax.ShapeDtypeStruct`s) to such a tree.
        `gradtx.labels` makes both.
      mask_compatible_extra_args: extra arguments of `update` with the updates' structure are divided as they are.

    State: those of the transformations, each for its own group. Reads: what they read.
    Raises:
      ValueError: a parameter has no label, or one that `transforms` lacks; it is named.
    Differs from Optax: leaves of other groups are None in a group's state; a function is given shapes, the same at
      every call.
    """

    transforms: Mapping[Any, GradientTransformation | Any] = part(convert=_transforms)
    param_labels: Any = static(convert=as_labels)
    mask_compatible_extra_args: bool = flag(default=False, kw_only=True)

    def init(self, params):
        masks = self._masks(params)
        return PartitionState(
            {label: MaskedState(tx.bare_init(kept(params, masks[label]))) for label, tx in self.transforms.items()}
        )

    def update(self, updates, state, params=None, **extra):
        masks, states, outgoing = self._masks(updates if params is None else params), {}, updates
        for label, tx in self.transforms.items():
            mask, inner = masks[label], state.inner_states[label].inner_state
            if jax.tree.leaves(kept(updates if params is None else params, mask)):
                given = kept_extra(extra, mask, updates) if self.mask_compatible_extra_args else extra
                group, inner = update_part(tx, mask, updates, inner, params, given)
                outgoing = leafwise.choose(lambda old, new: old if new is None else new, outgoing, group)
            states[label] = MaskedState(inner)
        return outgoing, PartitionState(states)

    def eval_params(self, state, params):
        masks, inside = self._masks(params), params
        for label, tx in self.transforms.items():
            group = tx.eval_params(state.inner_states[label].inner_state, kept(params, masks[label]))
            inside = leafwise.choose(lambda p, x: p if x is None else x, inside, group)
        return inside

    def _masks(self, params: Params) -> dict[Any, Any]:
        """For each label, a tree that holds True where a leaf has it."""
        rows = labelled(self.param_labels, params, self.name)
        for name, label in rows:
            if label not in self.transforms:
                known = ", ".join(map(repr, self.transforms))
                raise ValueError(
                    f"`{self.name}`: the label {label!r} of {name!r} is not one of transforms' labels, {known}."
                )
        structure = jax.tree.structure(paths.plain(params))
        return {key: structure.unflatten([label == key for _, label in rows]) for key in self.transforms}


multi_transform = partition  # its older name

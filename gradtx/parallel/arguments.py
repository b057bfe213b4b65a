"""The axis, as the functions here take it."""

from gradtx.collectives import Axis, AxisError, as_axis, size


def bound(owner: str, axis: Axis) -> Axis:
    """The axis, which is bound here.

    Raises:
      TypeError: it is no name.
      ValueError: it is not bound.
    """
    axis = as_axis(owner, "axis", axis)
    try:
        if axis is None:
            raise AxisError('axis must be the name of a manual axis, such as "data", got None')
        size(axis)
    except AxisError as error:
        raise ValueError(f"`{owner}`: {error}.") from None
    return axis

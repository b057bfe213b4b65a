"""All leaves as one vector."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gradtx import leafwise
from gradtx.core import GradientTransformation, as_transformation, transformation
from gradtx.placement import laid_like, whole_everywhere
from gradtx.value import part


@transformation
class flatten(GradientTransformation):
    """Applies a transformation to all leaves as one vector per dtype.

    It then takes the norm, the median or the sign of everything together; where parameters have several dtypes, of
    those of each. What is narrower than float32 counts as float32. Not for parameters that are sharded: a vector of
    them is gathered. To save operations on many small leaves there is no need for it: leaves that look alike share
    their program.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair.

    State: the inner one's, of vectors. Reads: what the inner one reads.
    Differs from Optax: leaves of several dtypes are not promoted to one; the vectors are then a dict by dtype.
    """

    inner: GradientTransformation = part(convert=as_transformation)

    def init(self, params):
        wide = jax.tree.map(_wide, params)
        return self.inner.bare_init(_flat(wide, wide))

    def update(self, updates, state, params=None, **extra):
        like = updates if params is None else params
        flat_params = None if params is None else _flat(params, like)
        flat, state = self.inner.bare_update(_flat(updates, like), state, flat_params, **extra)
        return _unflat(flat, updates, like), state


def _wide(x: Any) -> Any:
    """What updates see of a parameter, or of its shape."""
    is_shape = isinstance(x, jax.ShapeDtypeStruct)
    return jax.eval_shape(leafwise.widen, x) if is_shape else leafwise.widen(x)


def _groups(like: Any) -> dict[str, list[int]]:
    """The places of the leaves by dtype."""
    groups: dict[str, list[int]] = {}
    for place, x in enumerate(jax.tree.leaves(like)):
        groups.setdefault(jnp.result_type(x).name, []).append(place)
    return groups


def _flat(values: Any, like: Any) -> Any:
    """The leaves as a vector; of several dtypes as a dict of vectors; as they are, where there are none."""
    given, shapes = jax.tree.structure(like).flatten_up_to(values), jax.tree.leaves(like)
    leaves = [jnp.zeros_like(p) if x is None else x for x, p in zip(given, shapes, strict=True)]
    join = lambda leaves: {
        name: jnp.concatenate([jnp.ravel(whole_everywhere(leaves[i])[None]) for i in places])
        for name, places in _groups(like).items()
    }
    known = not any(isinstance(x, jax.ShapeDtypeStruct) for x in leaves)
    joined = join(leaves) if known else jax.eval_shape(join, leaves)
    return next(iter(joined.values())) if len(joined) == 1 else joined


def _unflat(flat: Any, updates: Any, like: Any) -> Any:
    """The inverse of `_flat`; None where the updates hold None."""
    groups = _groups(like)
    vectors = flat if len(groups) != 1 else {next(iter(groups)): flat}
    structure = jax.tree.structure(like)
    given, shapes, leaves = structure.flatten_up_to(updates), jax.tree.leaves(like), {}
    for name, places in groups.items():
        ends = np.cumsum([shapes[i].size for i in places])[:-1]
        for i, x in zip(places, jnp.split(vectors[name], ends), strict=True):
            leaves[i] = None if given[i] is None else laid_like(x.reshape(shapes[i].shape), shapes[i])
    return structure.unflatten([leaves[i] for i in range(len(shapes))])

"""Complex parameters as pairs of real ones."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gradtx import leafwise
from gradtx.combine.record import listening, repeat
from gradtx.core import GradientTransformation, State, as_transformation, transformation
from gradtx.partial import FUNCTIONS
from gradtx.value import part, state, static


@state
class SplitRealAndImaginaryArrays(NamedTuple):
    """What stands in the place of a complex array."""

    real: Any  # an array or its shape
    imaginary: Any


@state
class SplitRealAndImaginaryState(NamedTuple):
    """State of `split_real_and_imaginary`."""

    inner_state: State  # of the pairs


@transformation
class split_real_and_imaginary(GradientTransformation):
    """Lets a transformation see each complex parameter z = x + iy as two real ones, x and y.

    Gradients are JAX's, dL/dx - i dL/dy; the inner transformation is given dL/dx and dL/dy. What it returns becomes
    complex again: a step dx + i dy, if it has multiplied by a learning rate, as `split_real_and_imaginary(adam(1e-3))`
    does; else still a gradient as JAX's are, for the `scale_by_learning_rate` that comes after. So do not conjugate
    gradients yourself. Real leaves pass as they are.

    gradtx's methods take complex parameters without it: Adam then has one second moment for x and y, of |g|^2. With it
    each has its own, and norms per leaf are those of x and of y.

    Args:
      inner: a transformation, or a foreign `(init, update)` pair.
      steps: whether what it returns are steps. None: whether it, or a part of it, multiplies by a learning rate; so
        `cocob`, which has none, and foreign optimizers need True.

    State: the inner one's, of pairs. Reads: what the inner one reads. Leaves are called "z/real" and "z/imaginary" in
      it; `value_fn`, `grad_fn` and `grad` are made to fit.
    Differs from Optax: gradients are JAX's, not their conjugates, and extra arguments reach the inner one.
    """

    inner: GradientTransformation = part(convert=as_transformation)
    steps: bool | None = static(default=None, one_of=(None, True, False), kw_only=True)

    def init(self, params):
        return SplitRealAndImaginaryState(self.inner.bare_init(_pairs(params, params)))

    def eval_params(self, state, params):
        inside = self.inner.eval_params(state.inner_state, _pairs(params, params))
        return _joined(params, inside)

    def update(self, updates, state, params=None, **extra):
        like = updates if params is None else params
        extra = {name: _fitting(name, x, like) for name, x in extra.items()}
        pairs = None if params is None else _pairs(params, like)
        with listening() as said:
            split, inner_state = self.inner.bare_update(
                _conjugate(_pairs(updates, like)), state.inner_state, pairs, **extra
            )
        repeat(said)
        steps = any(x.name == "learning_rate" for x in said) if self.steps is None else self.steps
        outgoing = _joined(updates, split if steps else _conjugate(split))
        return outgoing, SplitRealAndImaginaryState(inner_state)


def _is_pair(x: Any) -> bool:
    return isinstance(x, SplitRealAndImaginaryArrays)


def _is_complex(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.complexfloating)


def _pairs(tree: Any, like: Any) -> Any:
    """The tree with a pair in the place of what is complex in `like`."""

    def leaf(x, p):
        if not _is_complex(p):
            return x
        if isinstance(x, jax.ShapeDtypeStruct):
            part = jax.ShapeDtypeStruct(x.shape, jnp.finfo(x.dtype).dtype, sharding=x.sharding)
            return SplitRealAndImaginaryArrays(part, part)
        return SplitRealAndImaginaryArrays(jnp.real(x), jnp.imag(x))

    return leafwise.choose(leaf, tree, like)


def _joined(like: Any, pairs: Any) -> Any:
    """The inverse of `_pairs`: a tree like the first."""
    return leafwise.choose(lambda _, x: jax.lax.complex(*x) if _is_pair(x) else x, like, pairs)


def _conjugate(pairs: Any) -> Any:
    """Every imaginary part turned around."""
    leaf = lambda x: x._replace(imaginary=-x.imaginary) if _is_pair(x) else x
    return jax.tree.map(leaf, pairs, is_leaf=_is_pair)


def _fitting(name: str, x: Any, like: Any) -> Any:
    """An extra argument as the inner transformation takes it."""
    if x is None:
        return None
    if name == "grad":
        return _conjugate(_pairs(x, like))
    if name not in FUNCTIONS:
        return x

    @functools.wraps(x)
    def of_pairs(pairs, *args, **kwargs):
        result = x(_joined(like, pairs), *args, **kwargs)
        return _conjugate(_pairs(result, like)) if name == "grad_fn" else result

    return of_pairs

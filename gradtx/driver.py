"""Minimizing a function to a tolerance: the loop around a transformation, as one compiled program."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.apply import apply_updates
from gradtx.combine.chain import Chain
from gradtx.combine.guard import apply_if_finite
from gradtx.combine.monitor import monitor
from gradtx.core import GradientTransformation, Params, State, as_transformation
from gradtx.optimizers.lbfgs import lbfgs
from gradtx.placement import differing_like
from gradtx.transforms.backtracking import scale_by_backtracking_linesearch
from gradtx.transforms.line import one_number, value_and_grad_from_state, value_and_wide_grad, value_dtype
from gradtx.transforms.zoom import scale_by_zoom_linesearch
from gradtx.value import Function, number, state

_TOLERANCE = number(within="[0, inf)").metadata["convert"]
_STEPS = number(within="[0, inf)", integer=True).metadata["convert"]


@state
class MinimizeResult(NamedTuple):
    """What `minimize` returns."""

    params: Params  # as x0, with its dtypes
    value: Array  # of the function there, float32 or wider
    gradient_norm: Array  # the joint L2 norm there
    steps: Array  # int32 scalar: updates made
    converged: Array  # bool scalar: whether gradient_norm <= tol, and the value is finite
    aux: Any  # what the function returns beside its value, there; None without `has_aux`
    state: State  # the transformation's


def minimize(
    fn: Callable,
    x0: Params,
    tx: Any = lbfgs(),  # noqa: B008
    *,
    tol: float = 1e-5,
    max_steps: int = 500,
    has_aux: bool = False,
    args: tuple = (),
) -> MinimizeResult:
    """Steps from x0 until the gradient is short, in one compiled loop.

        result = gradtx.minimize(loss, params)                                          # L-BFGS
        result = gradtx.minimize(loss, params, gradtx.newton(), tol=1e-6)
        descent = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20))
        result = gradtx.minimize(loss, params, descent, args=(data, labels))

    It compiles once for a function and the shapes: other numbers in x0, `args`, `tx`, `tol` or `max_steps` compile
    nothing. So write the function once, outside of loops, and hand data to it by `args`: a new lambda compiles anew.

    Args:
      fn: a function of the parameters, float32 or wider, and of `args` that returns a scalar; with `has_aux` two
        results. A callable pytree of arrays is an argument as well, so other arrays in it compile nothing.
      x0: a pytree; leaves that are not floating or complex stay as they are.
      tx: any transformation that ends in a descent step. It is given `value=`, `grad=` and `value_fn=`.
      tol: of the gradient's joint L2 norm, in its units; not negative. Near 1e-7 of the norm at the start float32 ends.
      max_steps: updates at most.
      has_aux: whether `fn` returns (value, aux); aux is evaluated once more, at the end.
      args: a tuple of pytrees.

    It stops at the tolerance, after `max_steps`, where the value is not finite or the gradient holds NaN, and where a
    line search found no step twice in a row; `converged` is True in the first case alone. Where `tx` ends in a line
    search that stores its gradient, the function is not evaluated between the steps. Forward-mode derivatives only.

    Raises:
      TypeError: `fn` is no function, `tx` no transformation, or x0 has no floating leaf.
      ValueError: `fn` does not return one real number; `tol` or `max_steps` is negative.
    """
    if not callable(fn):
        raise TypeError(f"`minimize`: fn must be a function, got {fn!r} of type {type(fn).__name__}.")
    tx = as_transformation("minimize", "tx", tx)
    if not isinstance(args, tuple):
        raise TypeError(f"`minimize`: args must be a tuple, such as `args=(data,)`, got {type(args).__name__}.")
    x0 = jax.tree.map(lambda x: leafwise.strong(x) if leafwise.is_number(x) else x, x0)
    if not jax.tree.leaves(leafwise.floats(x0)):
        kinds = sorted({str(getattr(x, "dtype", type(x).__name__)) for x in jax.tree.leaves(x0)})
        raise TypeError(f"`minimize`: x0 must have a floating or complex leaf, got {', '.join(kinds) or 'no leaves'}.")
    tol, max_steps = _TOLERANCE("minimize", "tol", tol), _STEPS("minimize", "max_steps", max_steps)
    arrays = jax.tree.map(lambda x: x if hasattr(x, "dtype") else Function(x), x0)
    found = _run(_as_argument(fn), arrays, tx, tol, max_steps, args, has_aux=bool(has_aux))
    return found._replace(params=jax.tree.map(_without, found.params, is_leaf=_is_function))


@functools.partial(jax.jit, static_argnames="has_aux")
def _run(fn: Any, x0: Any, tx: Any, tol: Any, max_steps: Any, args: tuple, *, has_aux: bool) -> MinimizeResult:
    """All of it. What is no array in `fn` and x0 is a `Function`, which has no leaves and is compared by what it holds.

    A pytree is the one place of jit's arguments where such a thing may be.
    """
    dtype = value_dtype(leafwise.floats(x0))
    search, stores = _search(tx), _stores(_search(tx), x0)

    def evaluate(params):
        found = fn(jax.tree.map(_without, leafwise.widen(params), is_leaf=_is_function), *args)
        if has_aux and not (isinstance(found, tuple) and len(found) == 2):
            raise ValueError(f"`minimize`: with has_aux fn must return (value, aux), got {type(found).__name__}.")
        value, aux = found if has_aux else (found, None)
        return one_number("minimize", "fn", value).astype(dtype), aux

    value_fn = lambda params: evaluate(params)[0]

    def measured(params, state):
        if stores:
            value, grad = value_and_grad_from_state(value_fn)(params, state=state)
        else:
            value, grad = value_and_wide_grad(value_fn, params)
        return value, grad, leafwise.norm(grad).astype(dtype)

    def goes_on(carry):
        _, _, value, _, norm, steps, stalled = carry
        return (steps < max_steps) & ~(norm <= tol) & jnp.isfinite(value) & ~jnp.isnan(norm) & (stalled < 2)

    def step(carry):
        params, state, value, grad, _, steps, stalled = carry
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=value_fn)
        new = apply_updates(params, updates)
        if search is not None:
            moved = leafwise.anywhere(lambda x, y: x != y, leafwise.floats(new), leafwise.floats(params))
            stalled = jnp.where(moved, 0, stalled + 1)
        return new, state, *measured(new, state), steps + 1, stalled

    state = tx.init(x0)
    zero = jnp.zeros((), jnp.int32)
    start = differing_like((x0, state, *measured(x0, state), zero, zero), x0)
    params, state, value, _, norm, steps, _ = jax.lax.while_loop(goes_on, step, start)
    aux = evaluate(params)[1] if has_aux else None
    converged = (norm <= tol) & jnp.isfinite(value)  # where a function has no number, its gradient may be 0
    return MinimizeResult(params, value, norm, steps, converged, aux, state)


def _as_argument(fn: Callable) -> Any:
    """The function as an argument of a compiled one: by its arrays if it is a pytree of them, else by what it is."""
    if not jax.tree_util.all_leaves([fn]) and all(hasattr(x, "dtype") for x in jax.tree.leaves(fn)):
        return fn
    try:
        hash(fn)
    except TypeError:
        raise TypeError(
            f"`minimize`: fn, of type {type(fn).__name__}, has no hash, by which it would be known when it comes "
            "again: write a function, and hand what it reads to it by `args`."
        ) from None
    return Function(fn)


def _search(tx: GradientTransformation) -> Any:
    """The line search that says last how far the step goes, if there is one."""
    if isinstance(tx, Chain):
        return _search(tx.links[-1]) if tx.links else None
    if isinstance(tx, (apply_if_finite, monitor)):
        return _search(tx.inner)
    return tx if isinstance(tx, (scale_by_backtracking_linesearch, scale_by_zoom_linesearch)) else None


def _stores(search: Any, params: Params) -> bool:
    """Whether its state holds the value and the gradient at the next parameters, as they are after rounding."""
    wide = all(x.dtype == leafwise.wide_dtype(x) for x in jax.tree.leaves(leafwise.floats(params)))
    return wide and (isinstance(search, scale_by_zoom_linesearch) or getattr(search, "store_grad", False))


def _is_function(x: Any) -> bool:
    return isinstance(x, Function)


def _without(x: Any) -> Any:
    """What a `Function` holds."""
    return x.function if _is_function(x) else x

"""A function along a line, for searches of a step size: what they read, and what the last one of them knows."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.calls import given_what_it_names
from gradtx.core import GradientTransformation, Params, Updates, require_params
from gradtx.partial import on_part
from gradtx.reductions import summed


class Line(NamedTuple):
    """The points start + rate direction, and the function that is minimized. Trees are lists of those leaves that move.

    Derivatives take the step size that is found on it as a constant: so a search differentiates in both modes, and
    what moves along the line moves with its start and its direction.
    """

    start: list[Array]
    direction: list[Array]
    value: Array  # at the start
    slope: Array  # at the start, by the rate
    fn: Callable  # (point, *consts) -> value
    consts: list[Array]  # what `fn` was closed over
    tree: Any  # start in its containers, None where nothing moves

    def point(self, rate: Array) -> list[Array]:
        """The point at a rate."""
        return [p + (rate.astype(u.dtype) * u).astype(p.dtype) for p, u in zip(self.start, self.direction, strict=True)]

    def slope_of(self, grad: list[Array]) -> Array:
        """The derivative by the rate where the gradient is `grad`, JAX's, which is conjugate."""
        return inner(list(zip(self.direction, grad, strict=True))).astype(self.value.dtype)

    def still(self) -> "Line":
        """The same line for a loop that is not differentiated."""
        parts = jax.lax.stop_gradient((self.start, self.direction, self.value, self.slope, self.consts))
        start, direction, value, slope, consts = parts
        return Line(start, direction, value, slope, self.fn, consts, self.tree)

    def value_at(self, point: list[Array]) -> Array:
        """The function's value at a point."""
        return self.fn(point, *self.consts)

    def value_and_grad(self, point: list[Array]) -> tuple[Array, list[Array]]:
        """The function's value and gradient at a point."""
        return jax.value_and_grad(self.fn)(point, *self.consts)

    def known(self, rate: Array, value: Array, grad: list[Array]) -> tuple[Array, list[Array]]:
        """The value and gradient at a rate, which the search knows, with their derivatives."""
        return _known(self.fn, self.point(rate), self.consts, (value, grad))

    def kept(self, old: Updates, grad: list[Array]) -> Updates:
        """The gradient for the state; where nothing moved, what the state had."""
        tree = jax.tree.structure(self.tree).unflatten(grad)
        return leafwise.choose(lambda before, g: before if g is None else g, old, tree)


def line(
    tx: GradientTransformation,
    updates: Updates,
    params: Params | None,
    value: Any,
    grad: Any,
    value_fn: Any,
    extra: dict[str, Any],
) -> Line:
    """The line along the updates.

    Raises:
      ValueError: one of the extra arguments is missing, or `value_fn` returns no scalar.
    """
    params = require_params(params, tx)
    missing = [name for name, x in (("value", value), ("grad", grad), ("value_fn", value_fn)) if x is None]
    if missing:
        raise ValueError(
            f"`{tx.name}` reads {', '.join(f'`{name}=`' for name in missing)} too: call `update(updates, state, "
            "params, value=value, grad=grad, value_fn=loss)` with `value, grad = jax.value_and_grad(loss)(params)`, "
            "or let `gradtx.minimize` call it."
        )
    moving = leafwise.choose(lambda u, p: p, updates, params)
    start, structure = jax.tree.flatten(moving)
    dtype = value_dtype(params)
    call = given_what_it_names(on_part({"value_fn": value_fn}, params)["value_fn"])

    def fn(point):
        return one_number(tx.name, "value_fn", call(structure.unflatten(point), **extra)).astype(dtype)

    converted, consts = jax.closure_convert(fn, start)
    known = leafwise.choose(lambda u, g: jnp.zeros_like(u) if g is None else jnp.asarray(g, u.dtype), updates, grad)
    direction = jax.tree.leaves(updates)
    slope = inner(list(zip(direction, jax.tree.leaves(known), strict=True))).astype(dtype)
    return Line(start, direction, jnp.reshape(value, ()).astype(dtype), slope, converted, consts, moving)


def one_number(owner: str, name: str, found: Any) -> Array:
    """What a function returned, as a scalar.

    Raises:
      ValueError: it is not one real number.
    """
    if not leafwise.is_number(found) or jnp.iscomplexobj(found) or jnp.size(found) != 1:
        kind = jax.typeof(found) if leafwise.is_number(found) else type(found).__name__
        raise ValueError(f"`{owner}`: {name} must return one real number, got {kind}.")
    return jnp.reshape(found, ())


def value_dtype(params: Params) -> Any:
    """The dtype of the function's value and of step sizes: float32, or wider where a parameter is."""
    kinds = [jnp.finfo(leafwise.wide_dtype(p)).dtype for p in jax.tree.leaves(params)]
    return functools.reduce(jnp.promote_types, kinds) if kinds else jnp.result_type(float)


def inner(pairs: list[tuple[Array, Array]]) -> Array:
    """Re sum x y over all entries of all pairs of arrays, in float32 or wider."""

    def leaf(x, y):
        (product,) = yield from summed(((x * y).real, None))
        return product

    found = leafwise.alike(leaf, pairs)
    if not found:
        return jnp.zeros(())
    with jax.numpy_dtype_promotion("standard"):  # leaves may be of several widths
        return jnp.sum(jnp.stack(found))


def value_and_grad_from_state(value_fn: Callable) -> Callable:
    """As `jax.value_and_grad(value_fn)`, but takes both from the state of a line search, which has just computed them.

        value_and_grad = gradtx.value_and_grad_from_state(loss)
        value, grad = value_and_grad(params, state=state)

    The state is found in a chain and in any other composition. The function is called where the value in the state is
    not finite, as before the first step; where the search moves a part of the parameters only, it is called always.
    The value is float32 or wider, and so are the gradients.

    Right where nothing after the search changes its step, and the function is the same from step to step: not for
    losses of batches. With parameters below float32 they are from before the parameters were rounded.

    Args:
      value_fn: a function of the parameters, and of other arguments that are given to the result.

    Raises:
      ValueError: no line search is in the state, or one that stores no gradient.
      KeyError: several are.
    """

    def value_and_grad(params, *args, state, **kwargs):
        found = stored(state)
        if len(found) > 1:
            raise KeyError(f"`value_and_grad_from_state`: the state holds {len(found)} line searches: ask one of them.")
        if not found or found[0].grad is None:
            rule = "scale_by_backtracking_linesearch(..., store_grad=True)" if found else "scale_by_zoom_linesearch"
            raise ValueError(f"`value_and_grad_from_state`: the state holds no value with its gradient: use `{rule}`.")
        value, grad = found[0].value, found[0].grad

        def compute():
            fresh_value, fresh = value_and_wide_grad(value_fn, params, *args, **kwargs)
            cast = lambda like, g: g.astype(like.dtype)
            return jnp.asarray(fresh_value, value.dtype), leafwise.choose(cast, in_place, fresh)

        in_place = leafwise.choose(lambda _, g: g, leafwise.floats(params), grad)
        if len(jax.tree.leaves(grad)) < len(jax.tree.leaves(leafwise.floats(params))):
            return value_and_wide_grad(value_fn, params, *args, **kwargs)
        return jax.lax.cond(jnp.isfinite(value), lambda: (value, in_place), compute)

    return value_and_grad


def value_and_wide_grad(value_fn: Callable, params: Params, *args: Any, **kwargs: Any) -> tuple[Array, Updates]:
    """The function's value and its gradient by the floating leaves, float32 or wider; None for the others."""
    of_floats = on_part({"value_fn": value_fn}, params)["value_fn"]
    value, grad = jax.value_and_grad(of_floats)(leafwise.floats(params), *args, **kwargs)
    return value, leafwise.widen(grad)


def stored(state: Any) -> list[Any]:
    """The states of line searches, or of others that hold a value and its gradient, anywhere in a state."""
    is_one = lambda x: isinstance(x, tuple) and {"value", "grad"} <= {*getattr(x, "_fields", ())}
    return [x for x in jax.tree.leaves(state, is_leaf=is_one) if is_one(x)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def _known(fn: Callable, point: list[Array], consts: list[Array], outcome: Any) -> Any:
    """`outcome`, which is `jax.value_and_grad(fn)(point, *consts)`, differentiated as that."""
    return outcome


@_known.defjvp
def _slope_of_known(fn, primals, tangents):
    (point, consts, outcome), (dpoint, dconsts, _) = primals, tangents
    function = lambda point, consts: jax.value_and_grad(fn)(point, *consts)
    return outcome, jax.jvp(function, (point, consts), (dpoint, dconsts))[1]

"""Accumulating gradients over micro-batches."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from gradtx import leafwise
from gradtx.calls import given_what_it_names
from gradtx.clock import as_float, start, tick, time
from gradtx.collectives import Axis, as_axis, names, total
from gradtx.combine.branch import update_if
from gradtx.core import GradientTransformation, Params, State, Updates, as_transformation, transformation
from gradtx.placement import differing_like
from gradtx.value import Function, flag, known, part, state, static, storage_dtype


class ShouldSkipUpdateFunction(Protocol):
    """The type of a function that decides whether a micro-batch is left out."""

    def __call__(self, updates: Updates, gradient_step: Array, params: Params | None) -> tuple[Array, Any]:
        """Whether to leave it out, a bool scalar, and a pytree of what was found, which the state keeps."""
        ...


def skip_not_finite(
    updates: Updates, gradient_step: Array, params: Params | None, axis: Axis = None
) -> tuple[Array, Any]:
    """Leaves out micro-batches whose gradients hold NaN or an infinity. Reports whether, and how many entries.

    Args:
      axis: the manual axis, or several, along which devices decide together: `MultiSteps` gives its own.
    """
    del gradient_step, params
    counts = [jnp.sum(~jnp.isfinite(g)) for g in jax.tree.leaves(updates)]
    number = total(jnp.sum(jnp.stack(counts)) if counts else jnp.zeros((), jnp.int32), axis)
    return number > 0, {"should_skip": number > 0, "num_not_finite": number}


def skip_large_updates(
    updates: Updates, gradient_step: Array, params: Params | None, max_squared_norm: float, axis: Axis = None
) -> tuple[Array, Any]:
    """Leaves out micro-batches whose gradients have a squared norm of at least a bound, or NaN. Reports whether, and
    it.

    Args:
      max_squared_norm: the bound; give it by `functools.partial`.
      axis: as in `skip_not_finite`; the norm is then of whole leaves.
    """
    del gradient_step, params
    square = jnp.square(leafwise.norm(updates, axis=axis))
    should_skip = ~(square < max_squared_norm)  # NaN is skipped
    return should_skip, {"should_skip": should_skip, "norm_squared": square}


@state
class MultiStepsState(NamedTuple):
    """State of `MultiSteps`."""

    mini_step: Array  # int32 scalar: micro-batches accumulated since the last update
    gradient_step: Array  # int32 scalar: updates made so far
    inner_opt_state: State  # the inner transformation's own
    acc_grads: Updates  # gradients' mean or sum, as `accumulator_dtype`; if `weighted`, (it, the losses', weights)
    skip_state: Any = ()  # what `should_skip_update_fn` reported last


def _every(owner: str, name: str, k: Any) -> Any:
    if known(k) and jnp.ndim(k) == 0:
        k = k.item()
    if callable(k):
        return Function(k) if jax.tree_util.all_leaves([k]) else k
    if not isinstance(k, (jax.Array, jax.ShapeDtypeStruct)) and (not isinstance(k, int) or k < 1):
        raise ValueError(
            f"`{owner}`: {name} must be a whole number of at least 1, or a function of the step, got {k!r}."
        )
    return k


@transformation
class MultiSteps(GradientTransformation):
    """Accumulates the gradients of k micro-batches and lets the inner transformation make one update of them.

        a = mean of g over k calls;   u = inner(a) at every k-th call, 0 at the others

    The inner transformation runs at every k-th call alone, and lives by the count of its updates. Everything around
    this one, such as a schedule outside of it, counts micro-batches.

    Args:
      opt: a transformation, or a foreign `(init, update)` pair.
      every_k_schedule: k, at least 1; or a function from the count of updates made to k.
      use_grad_mean: False takes the sum.
      should_skip_update_fn: leaves out a micro-batch: `skip_not_finite`, or a function like it. What is left out does
        not count as one of the k.
      accumulator_dtype: storage of the gradients; None means float32 or wider.
      weighted: each call gives `weight=`, a scalar that is not negative, such as the number of tokens in its loss; the
        gradients' mean is then by weight, and of the same weights is that of `value=`, where it is given; `grad=` is
        these gradients. So k unequal micro-batches make one full batch, for methods that read the loss too. A
        `value_fn` must be of the full batch already.
      axis: the manual axis (of `jax.shard_map`, `jax.pmap`), or several, along which devices hold parts of one set of
        gradients, and decide as one what is left out: it is given to a `should_skip_update_fn` that names it.

    State: 8 bytes, 4 per float32 parameter, and the inner one's; 8 more if weighted. Reads: what the inner one reads.
    Differs from Optax: it is a transformation itself. The inner one does not run at every call, and the accumulated
      gradients are dropped by selection, not by multiplying with 0: one infinite gradient does not stay for ever.
    """

    opt: GradientTransformation = part(convert=as_transformation)
    every_k_schedule: Any = part(convert=_every)
    use_grad_mean: bool = flag(default=True)
    should_skip_update_fn: Callable | None = static(default=None)
    accumulator_dtype: DTypeLike | None = storage_dtype(default=jnp.float32)
    weighted: bool = flag(default=False, kw_only=True)
    axis: Axis = static(default=None, convert=as_axis, kw_only=True)

    def init(self, params):
        inner = self.opt.bare_init(params)
        skip_state: Any = ()
        if (should_skip := self.should_skip_update_fn) is not None:
            found = jax.eval_shape(lambda p: should_skip(p, start(), p)[1], params)
            skip_state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), found)
        grads = leafwise.zeros(params, self.accumulator_dtype)
        accumulated = (grads, jnp.zeros((), float), jnp.zeros((), float)) if self.weighted else grads
        state = MultiStepsState(start(), start(), inner, accumulated, skip_state)
        return differing_like(state, params, but=names(self.axis))

    def update(self, updates, state, params=None, **extra):
        k: Any = self.every_k_schedule
        k = k(state.gradient_step) if callable(k) else k
        skip, skip_state = jnp.array(False), state.skip_state
        if self.should_skip_update_fn is not None:
            together = {} if self.axis is None else {"axis": self.axis}
            should_skip = given_what_it_names(self.should_skip_update_fn)
            skip, skip_state = should_skip(updates, state.gradient_step, params, **together)
        accumulated, grads, extra = self._accumulated(updates, state, extra)
        emit = (state.mini_step >= k - 1) & ~skip

        def make():
            with time(state.gradient_step):
                return self.opt.bare_update(grads, state.inner_opt_state, params, **extra)

        outgoing, inner = update_if(emit, make, None, state.inner_opt_state)
        chosen = lambda old, new: jnp.where(skip, old, jnp.where(emit, jnp.zeros_like(new), new))
        return outgoing, MultiStepsState(
            mini_step=chosen(state.mini_step, tick(state.mini_step)),
            gradient_step=jnp.where(emit, tick(state.gradient_step), state.gradient_step),
            inner_opt_state=inner,
            acc_grads=jax.tree.map(chosen, state.acc_grads, accumulated),
            skip_state=skip_state,
        )

    def _accumulated(self, updates: Updates, state: MultiStepsState, extra: dict) -> tuple[Any, Updates, dict]:
        """What is stored after this micro-batch, the gradients in it, and the inner one's extra arguments."""
        if not self.weighted:
            share = 1 / (as_float(state.mini_step) + 1)
            mean = lambda g, a: a + (g - a) * share
            grads = leafwise.map(mean if self.use_grad_mean else lambda g, a: a + g, updates, state.acc_grads)
            return self._kept(grads, state.acc_grads), grads, extra
        if "weight" not in extra:
            raise ValueError(
                "`MultiSteps`: weighted=True needs `update(..., weight=)`, the weight of this micro-batch."
            )
        sums, value, total = state.acc_grads
        weight = jnp.asarray(extra["weight"], total.dtype)
        total = total + weight
        share = jnp.where(total > 0, weight / jnp.where(total > 0, total, 1), 0)
        like = lambda x, g: x.astype(g.real.dtype)
        mean, total_of = lambda g, a: a + (g - a) * like(share, g), lambda g, a: a + g * like(weight, g)
        add = mean if self.use_grad_mean else total_of
        grads = leafwise.map(add, updates, sums)
        if extra.get("value") is not None:
            value = add(jnp.asarray(extra["value"], value.dtype), value)
            extra = extra | {"value": value}
        if extra.get("grad") is not None:
            extra = extra | {"grad": grads}
        return (self._kept(grads, sums), value, total), grads, extra

    def _kept(self, grads: Updates, stored: Updates) -> Updates:
        """The accumulated gradients, and those of parameters without one now as they were."""
        return jax.tree.map(lambda a, g: a if g is None else g, stored, grads)

    def eval_params(self, state, params):
        return self.opt.eval_params(state.inner_opt_state, params)

    def has_updated(self, state: MultiStepsState) -> Array:
        """Whether the call that returned this state made an update."""
        return (state.mini_step == 0) & (state.gradient_step > 0)

    def gradient_transformation(self) -> GradientTransformation:
        """This transformation: for programs that ask for one."""
        return self

    @property
    def inner_opt(self) -> GradientTransformation:
        """The inner transformation."""
        return self.opt


@state
class ApplyEvery(NamedTuple):
    """State of `apply_every`."""

    count: Array  # int32 scalar: calls since the last update went out
    grad_acc: Updates  # sum of the updates since


@transformation
class apply_every(GradientTransformation):
    """Lets the sum of k updates out at every k-th call, and 0 at the others.

    What stands before it in a chain has seen every micro-batch as an update: an adaptive method before it divides
    each by its own moments. To accumulate gradients for one update, see `MultiSteps`.

    Args:
      k: at least 1.

    State: 4 bytes, and 4 per float32 parameter. Reads: updates only.
    """

    k: Any = part(default=1, convert=_every)

    def init(self, params):
        return ApplyEvery(start(), leafwise.zeros(params))

    def update(self, updates, state, params=None, **extra):
        emit = state.count >= self.k - 1

        def leaf(g, total):
            total = total + g
            return jnp.where(emit, total, jnp.zeros_like(total)), jnp.where(emit, jnp.zeros_like(total), total)

        outgoing, totals = leafwise.unzip_map(leaf, updates, state.grad_acc, outputs=2)
        return outgoing, ApplyEvery(jnp.where(emit, 0, tick(state.count)), totals)

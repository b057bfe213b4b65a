"""L-BFGS (Liu & Nocedal, 1989): Newton's step with the inverse Hessian that the last steps have seen."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from gradtx import leafwise
from gradtx.clock import Hyperparameter, start, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, Params, as_transformation, require_params, transformation
from gradtx.moments import length, shrinkage
from gradtx.placement import differing_like, zeros_of_axes
from gradtx.transforms.line import inner, value_dtype
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.transforms.zoom import scale_by_zoom_linesearch
from gradtx.value import flag, state, whole

Leaves = list[Array]


@state
class ScaleByLBFGSState(NamedTuple):
    """State of `scale_by_lbfgs`. Stored in float32 or wider; the memories have a leading dimension of `memory_size`."""

    count: Array  # int32 scalar: updates made so far
    params: Params  # at the last update
    updates: Params  # the gradients then; complex ones as the pairs of reals' are, not as JAX's
    diff_params_memory: Params  # s, the last steps, in turns
    diff_updates_memory: Params  # y, what the gradients changed by
    weights_memory: Array  # 1 / s^T y; 0 for a pair that is left out


@transformation
class scale_by_lbfgs(GradientTransformation):
    """Multiplies the updates, all leaves as one vector, by an estimate of the inverse Hessian.

        s = p - p',   y = g - g'                  since the last update; kept for `memory_size` updates
        H <- (I - s y^T / s^T y) H (I - y s^T / s^T y) + s s^T / s^T y        over the pairs, from H = gamma I
        u = H g

    By the two-loop recursion: no matrix is made, nothing is flattened, inner products are float32 or wider.
    gamma = s^T y / |y|^2 of the newest pair; without a pair min(1, 1 / |g|), so that the first step is at most 1 long.

    A pair whose curvature s^T y is not positive, up to rounding, is left out: so H stays positive definite and -u goes
    downhill. An update after which no parameter moved, as when a line search found no step, empties the memory.

    Args:
      memory_size: pairs kept, 1 or more.
      scale_init_precond: False starts from gamma = 1 always.

    State: 8 memory_size + 8 bytes per float32 parameter. Reads: params. For functions without noise: the gradients of
      different batches differ by more than curvature.
    Source: Nocedal, Updating quasi-Newton matrices with limited storage, 1980; Liu, Nocedal, On the limited memory BFGS
      method for large scale optimization, 1989; Nocedal, Wright, Numerical Optimization, 2006, Algorithm 7.4.
    Differs from Optax: it takes pairs of negative curvature, and then may go uphill; complex gradients are JAX's.
    """

    memory_size: int = whole(default=10, within="[1, inf)")
    scale_init_precond: bool = flag(default=True)

    def init(self, params):
        stacked = lambda p: zeros_of_axes(p, [(), *((i,) for i in range(p.ndim))], shape=(self.memory_size, *p.shape))
        memory = lambda: leafwise.choose(stacked, leafwise.zeros(params))
        last = leafwise.zeros(params), leafwise.zeros(params)
        weights = differing_like(jnp.zeros(self.memory_size, value_dtype(params)), params)
        return ScaleByLBFGSState(start(), *last, memory(), memory(), weights)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        slot = (state.count - 1) % self.memory_size
        moving = lambda tree: jax.tree.leaves(leafwise.choose(lambda g, x: x, updates, tree))
        grads, structure = jax.tree.flatten(jax.tree.map(jnp.conj, updates))
        s = _differences(moving(params), moving(state.params))
        y = _differences(grads, moving(state.updates))

        dtype = state.weights_memory.dtype
        sy, ss, yy = (_dot(*pair).astype(dtype) for pair in ((s, y), (s, s), (y, y)))
        rounding = jnp.finfo(dtype).eps * jnp.sqrt(jax.lax.stop_gradient(ss)) * jnp.sqrt(jax.lax.stop_gradient(yy))
        curved = (state.count > 0) & (sy > rounding) & (sy >= jnp.finfo(dtype).tiny)
        weight = jnp.where(curved, 1 / jnp.where(curved, sy, 1), 0)
        weights = jnp.where(ss == 0, 0, state.weights_memory).at[slot].set(weight)

        def put(memory, x):
            x = jnp.zeros_like(memory[0]) if x is None else jnp.where(curved, x, 0).astype(memory.dtype)
            return jax.lax.dynamic_update_index_in_dim(memory, x, slot, 0)

        s_memory = leafwise.map(put, state.diff_params_memory, structure.unflatten(s))
        y_memory = leafwise.map(put, state.diff_updates_memory, structure.unflatten(y))
        memories = moving(s_memory), moving(y_memory)
        scale = _first_estimate(grads, memories[1], weights, state.count) if self.scale_init_precond else 1.0
        direction = _precondition_by_lbfgs(grads, *memories, weights, scale, state.count % self.memory_size)
        keep = lambda old, new: old if new is None else jnp.copy(new)
        last_params = leafwise.choose(keep, state.params, leafwise.choose(lambda g, p: p, updates, params))
        last_updates = leafwise.choose(keep, state.updates, structure.unflatten(grads))
        updates = structure.unflatten(map(jnp.conj, direction))
        return updates, ScaleByLBFGSState(tick(state.count), last_params, last_updates, s_memory, y_memory, weights)


@jax.jit  # so that its loops are compiled once where `update` is called outside of jit
def _precondition_by_lbfgs(
    updates: Any,
    diff_params_memory: Any,
    diff_updates_memory: Any,
    weights_memory: Array,
    identity_scale: ArrayLike,
    memory_idx: ArrayLike,
) -> Any:
    """H g by Algorithm 7.4: down the pairs from the newest, then up again. The oldest pair is at `memory_idx`."""
    at = lambda memory, i: jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), memory)
    times = lambda factor, x, like: jnp.asarray(factor, like.dtype) * x.astype(like.dtype)
    add = lambda vector, factor, xs: jax.tree.map(lambda v, x: v + times(factor, x, v), vector, xs)
    weigh = lambda i, xs, vector: weights_memory[i] * _dot(xs, vector).astype(weights_memory.dtype)

    def down(vector, i):
        along = weigh(i, at(diff_params_memory, i), vector)
        return add(vector, -along, at(diff_updates_memory, i)), along

    def up(vector, pair):
        i, along = pair
        beta = weigh(i, at(diff_updates_memory, i), vector)
        return add(vector, along - beta, at(diff_params_memory, i)), None

    oldest_first = (memory_idx + jnp.arange(len(weights_memory))) % len(weights_memory)
    vector, alongs = jax.lax.scan(down, updates, oldest_first, reverse=True)
    vector = jax.tree.map(lambda v: times(identity_scale, v, v), vector)
    return jax.lax.scan(up, vector, (oldest_first, alongs))[0]


def _first_estimate(grads: Leaves, y_memory: Leaves, weights: Array, count: Array) -> Array:
    """gamma: the curvature of the newest pair that is held; without one, what makes the step at most 1 long."""
    newest_first = (count - 1 - jnp.arange(len(weights))) % len(weights)
    held = weights[newest_first] > 0
    i = newest_first[jnp.argmax(held)]
    y = [jax.lax.dynamic_index_in_dim(x, i, keepdims=False) for x in y_memory]
    inverse = jnp.where(held.any(), weights[i] * _dot(y, y).astype(weights.dtype), 1)
    first = shrinkage(length(_dot(grads, grads)), 1.0).astype(weights.dtype)
    return jnp.where(held.any(), 1 / inverse, first)


def lbfgs(
    learning_rate: Hyperparameter | None = None,
    memory_size: int = 10,
    scale_init_precond: bool = True,
    linesearch: Any = scale_by_zoom_linesearch(20, initial_guess_strategy="one"),  # noqa: B008
) -> GradientTransformation:
    """L-BFGS with a line search, for functions without noise. Other arguments: `scale_by_lbfgs`.

        p <- p - a learning_rate H g            a: from the line search

        result = gradtx.minimize(loss, params, gradtx.lbfgs())

        value_and_grad = gradtx.value_and_grad_from_state(loss)             # or step by step
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)

    Args:
      learning_rate: the share of the full step that the line search starts from; None: 1.
      linesearch: a transformation that scales the step, by `value=`, `grad=` and `value_fn=`; None: none.
    """
    rate = scale_by_learning_rate(1.0 if learning_rate is None else learning_rate)
    search = [] if linesearch is None else [as_transformation("lbfgs", "linesearch", linesearch)]
    return chain(scale_by_lbfgs(memory_size, scale_init_precond), rate, *search)


def _differences(new: Leaves, old: Leaves) -> Leaves:
    return [x - y.astype(x.dtype) for x, y in zip(new, old, strict=True)]


def _dot(x: Any, y: Any) -> Array:
    """Re x^H y over all leaves."""
    pairs = zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True)
    return inner([(jnp.conj(a).astype(b.dtype), b) for a, b in pairs])

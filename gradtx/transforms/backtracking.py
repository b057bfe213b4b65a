"""Backtracking: from a long step to the first shorter one that decreases the function enough."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gradtx import leafwise
from gradtx.clock import Hyperparameter, at, now
from gradtx.combine.record import record
from gradtx.core import GradientTransformation, Params, transformation
from gradtx.placement import differing_like
from gradtx.transforms.line import line, value_dtype
from gradtx.value import flag, number, state


@state
class BacktrackingLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_backtracking_linesearch` went."""

    num_linesearch_steps: Array  # int32 scalar: step sizes tried
    decrease_error: Array  # by how much the last one decreased too little; 0: enough; inf: the function has no number


@state
class ScaleByBacktrackingLinesearchState(NamedTuple):
    """State of `scale_by_backtracking_linesearch`."""

    learning_rate: Array  # the step size taken last
    value: Array  # of the function after that step; inf before the first
    grad: Params | None  # its gradient there, float32 or wider; None unless `store_grad`
    info: BacktrackingLinesearchInfo


@transformation
class scale_by_backtracking_linesearch(GradientTransformation):
    """Multiplies the steps by the first of ever smaller factors that decreases the function sufficiently.

        f(p + a u) <= f(p) + slope_rtol a <u, grad f(p)> + atol + rtol |f(p)|          (Armijo's condition)
        a = a0, a0 c, a0 c^2, ...         c = decrease_factor;  a0 = min(increase_factor times the last a, the maximum)

        tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_backtracking_linesearch(20))
        value, grad = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)

    It stands after the learning rate: what comes in is added to the parameters, and must go downhill.

    Args:
      max_backtracking_steps: how often the factor is made smaller, at most; 0 or more.
      slope_rtol: the share of the slope's decrease to ask for, in [0, 1).
      decrease_factor: in (0, 1).
      increase_factor: positive; 1 starts from the last factor, `inf` from the maximum each time.
      max_learning_rate: the largest factor, positive.
      atol: in units of the function; not negative.
      rtol: in units of its magnitude; not negative.
      store_grad: keep the gradient after the step for `value_and_grad_from_state`; one more evaluation.
      verbose: print a line where no factor was good.

    State: 16 bytes; with `store_grad` 4 per parameter. Reads: params; `value=` and `grad=`, the function's value and
      JAX's gradient at the parameters; `value_fn=`, the function, called with parameters in float32 or wider, and with
      those of the other arguments of `update` that it names. Evaluates it once per factor.
    Where no factor is good the last is taken, or 0 if f is not lower there: no step goes uphill. After 0 the next
      search starts from the maximum. Outside of `jit` the search is compiled anew at each call. Derivatives take the
      factor as constant.
    Raises:
      ValueError: an argument or params are missing.
    Source: Nocedal, Wright, Numerical Optimization, 2006, Algorithm 3.1; increase_factor: Vaswani et al., Painless
      stochastic gradient, NeurIPS 2019 (arXiv:1905.09997).
    Differs from Optax: a search that fails never steps uphill, does not leave the factor 0 for good, and stores the
      value of the step taken; where f is negative, rtol allows more and not less; arguments that `value_fn` does not
      name are for others, and no error; `grad` is JAX's also where it is complex.
    """

    max_backtracking_steps: Any = number(within="[0, inf)", integer=True)
    slope_rtol: Hyperparameter = number(default=1e-4, within="[0, 1)")
    decrease_factor: Hyperparameter = number(default=0.8, within="(0, 1)")
    increase_factor: Hyperparameter = number(default=1.5, within="(0, inf]")
    max_learning_rate: Hyperparameter = number(default=1.0, within="(0, inf)")
    atol: Hyperparameter = number(default=0.0, within="[0, inf)")
    rtol: Hyperparameter = number(default=0.0, within="[0, inf)")
    store_grad: bool = flag(default=False)
    verbose: bool = flag(default=False)

    def init(self, params):
        dtype = value_dtype(params)
        unknown = lambda: jnp.full((), jnp.inf, dtype)
        info = BacktrackingLinesearchInfo(jnp.zeros((), jnp.int32), unknown())
        grad = leafwise.zeros(params) if self.store_grad else None
        state = ScaleByBacktrackingLinesearchState(jnp.ones((), dtype), unknown(), grad, info)
        return differing_like(state, params)

    def update(self, updates, state, params=None, *, value=None, grad=None, value_fn=None, **extra):
        path = line(self, updates, params, value, grad, value_fn, extra)
        still, dtype = path.still(), path.value.dtype
        numbers = (self.slope_rtol, self.decrease_factor, self.increase_factor)
        numbers += (self.max_learning_rate, self.atol, self.rtol)
        numbers = [jnp.asarray(x, dtype) for x in jax.lax.stop_gradient(at(now(), *numbers))]
        slope_rtol, decrease, increase, largest, atol, rtol = numbers

        def lacking(rate, found):
            """By how much the decrease is too small; infinite where the function has no number."""
            error = found - still.value - rtol * jnp.abs(still.value) - rate * slope_rtol * still.slope
            return jnp.where(jnp.isnan(error), jnp.inf, jnp.maximum(error, 0))

        def searching(carry):
            steps, _, _, error = carry
            return ~(error <= atol) & (steps <= self.max_backtracking_steps)

        def try_one(carry):
            steps, rate, _, _ = carry
            rate = jnp.where(steps > 0, decrease * rate, rate)
            found = still.value_at(still.point(rate))
            return steps + 1, rate, found, lacking(rate, found)

        last = jax.lax.stop_gradient(state.learning_rate)
        first = jnp.where(last > 0, jnp.minimum(increase * jnp.where(last > 0, last, 1), largest), largest)
        start = (jnp.zeros((), jnp.int32), first, still.value, jnp.full((), jnp.inf, dtype))
        start = differing_like(start, (still.start, still.direction, still.slope, still.value, first))
        steps, rate, found, error = jax.lax.while_loop(searching, try_one, start)
        nowhere = (error > atol) & ~(found < still.value)
        if self.verbose:
            jax.debug.callback(_tell, error > atol, nowhere, still.value, still.slope, rate, error)
        rate, found = jnp.where(nowhere, 0, rate), jnp.where(nowhere, still.value, found)
        record(extra, learning_rate=lambda: rate)
        new_grad = None
        if self.store_grad:
            found, leaves = path.value_and_grad(path.point(rate))
            new_grad = path.kept(state.grad, leaves)
        scaled = leafwise.map(lambda u: rate.astype(u.dtype) * u, updates)
        info = BacktrackingLinesearchInfo(steps, error)
        return scaled, ScaleByBacktrackingLinesearchState(rate, found, new_grad, info)


def _tell(failed, nowhere, value, slope, rate, error) -> None:
    """Prints why no step size was good."""
    if failed:
        taken = "no step is taken" if nowhere else "the last is taken"
        uphill = "; the updates do not go downhill" if not slope < 0 else ""
        print(
            f"`scale_by_backtracking_linesearch`: no step size decreases the function enough, {taken}{uphill}. "
            f"value {value}, slope {slope}, step size {rate}, decrease error {error}"
        )

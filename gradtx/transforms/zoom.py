"""The line search with Wolfe's conditions: a step size that decreases the function and leaves little slope."""

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
from gradtx.transforms.wolfe import Rules, search
from gradtx.value import flag, number, state, static

# What `verbose` prints.
FLAG_INTERVAL_NOT_FOUND = "The slope is still steep at the largest step size: max_learning_rate is too small."
FLAG_INTERVAL_TOO_SMALL = "The interval is shorter than stepsize_precision."
FLAG_CURVATURE_COND_NOT_SATISFIED = "The step decreases the function enough, but much slope is left."
FLAG_NO_STEPSIZE_FOUND = "No step size decreases the function enough."
FLAG_NOT_A_DESCENT_DIRECTION = "The updates do not go downhill."


@state
class ZoomLinesearchInfo(NamedTuple):
    """How the last search of `scale_by_zoom_linesearch` went."""

    num_linesearch_steps: Array  # int32 scalar: step sizes tried
    decrease_error: Array  # by how much the function decreased too little; 0: enough; inf: it has no number
    curvature_error: Array  # by how much too much slope is left; 0: little enough


@state
class ScaleByZoomLinesearchState(NamedTuple):
    """State of `scale_by_zoom_linesearch`."""

    learning_rate: Array  # the step size taken last
    value: Array  # of the function after that step; inf before the first
    grad: Params  # its gradient there, float32 or wider
    info: ZoomLinesearchInfo


@transformation
class scale_by_zoom_linesearch(GradientTransformation):
    """Multiplies the steps by a factor that decreases the function and leaves little slope: Wolfe's strong conditions.

        f(p + a u) <= f(p) + c1 a <u, grad f(p)> + tol                  c1 = slope_rtol
        |<u, grad f(p + a u)>| <= c2 |<u, grad f(p)>| + tol             c2 = curv_rtol

        tx = gradtx.chain(gradtx.sgd(1.0), gradtx.scale_by_zoom_linesearch(20))
        value_and_grad = gradtx.value_and_grad_from_state(loss)
        value, grad = value_and_grad(params, state=state)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=loss)

    It stands after the learning rate: what comes in is added to the parameters, and must go downhill. The factor
    grows until an interval holds a good one; inside it is found by cubic and quadratic interpolation and bisection.
    Near a minimum, where f's differences are rounding, slopes decide: f(p + a u) <= f(p) + approx_dec_rtol |f(p)| and
    <u, grad f(p + a u)> <= (2 c1 - 1) <u, grad f(p)>.

    Args:
      max_linesearch_steps: evaluations at most, 1 or more.
      max_learning_rate: the largest factor, positive; None: no bound.
      tol: by how much a condition may be violated; not negative.
      increase_factor: positive, above 1 to be of use.
      slope_rtol: c1, in [0, 1).
      curv_rtol: c2, not negative; `inf` asks for no curvature.
      approx_dec_rtol: not negative; None leaves that out.
      stepsize_precision: an interval shorter than this is given up, if some factor decreased f enough.
      initial_guess_strategy: "keep" tries the last factor first, "one" 1, which fits Newton's and quasi-Newton steps.
      verbose: print why, where a condition is not met.

    State: 20 bytes, and 4 per parameter. Reads: params; `value=` and `grad=`, the function's value and JAX's gradient
      at the parameters; `value_fn=`, the function, called with parameters in float32 or wider, and with those of the
      other arguments of `update` that it names. Evaluates it and its gradient once per factor.
    Where the search fails, the best factor that decreased f enough is taken, else the last; 0 where f is not lower
      there: no step goes uphill. Outside of `jit` the search is compiled anew at each call. Derivatives take the factor
      as constant.
    Raises:
      ValueError: an argument or params are missing.
    Source: Nocedal, Wright, Numerical Optimization, 2006, Algorithms 3.5 and 3.6; Hager, Zhang, Algorithm 851:
      CG_DESCENT, 2006, equations 23, 26 and 27.
    Differs from Optax: a search that fails never steps uphill; `info` is of the step taken, not of the last one tried;
      a factor of 0 is not kept as the next guess; arguments that `value_fn` does not name are for others, and no error;
      `grad` is JAX's also where it is complex.
    """

    max_linesearch_steps: Any = number(within="[1, inf)", integer=True)
    max_learning_rate: Hyperparameter | None = number(default=None, within="(0, inf)", optional=True)
    tol: Hyperparameter = number(default=0.0, within="[0, inf)")
    increase_factor: Hyperparameter = number(default=2.0, within="(0, inf)")
    slope_rtol: Hyperparameter = number(default=1e-4, within="[0, 1)")
    curv_rtol: Hyperparameter = number(default=0.9, within="[0, inf]")
    approx_dec_rtol: Hyperparameter | None = number(default=1e-6, within="[0, inf)", optional=True)
    stepsize_precision: Hyperparameter = number(default=1e-5, within="[0, inf)")
    initial_guess_strategy: str = static(default="keep", one_of=("keep", "one"))
    verbose: bool = flag(default=False)

    def init(self, params):
        dtype = value_dtype(params)
        unknown = lambda: jnp.full((), jnp.inf, dtype)
        info = ZoomLinesearchInfo(jnp.zeros((), jnp.int32), unknown(), unknown())
        state = ScaleByZoomLinesearchState(jnp.ones((), dtype), unknown(), leafwise.zeros(params), info)
        return differing_like(state, params)

    def update(self, updates, state, params=None, *, value=None, grad=None, value_fn=None, **extra):
        path = line(self, updates, params, value, grad, value_fn, extra)
        rules = self._rules(state, path.value.dtype)
        found = search(path.still(), rules)
        if self.verbose:
            jax.debug.callback(_tell, rules, path.slope, found._replace(grad=[]))
        rate = found.tried.rate
        record(extra, learning_rate=lambda: rate)
        new_value, leaves = path.known(rate, found.tried.value, found.grad)
        scaled = leafwise.map(lambda u: rate.astype(u.dtype) * u, updates)
        info = ZoomLinesearchInfo(found.steps, found.decrease_error, found.curvature_error)
        return scaled, ScaleByZoomLinesearchState(rate, new_value, path.kept(state.grad, leaves), info)

    def _rules(self, state: ScaleByZoomLinesearchState, dtype: Any) -> Rules:
        def constant(x):
            (number_now,) = jax.lax.stop_gradient(at(now(), x))
            return jnp.asarray(number_now, dtype)

        last = jax.lax.stop_gradient(state.learning_rate)
        keep = self.initial_guess_strategy == "keep"
        return Rules(
            self.max_linesearch_steps,
            guess=jnp.where(last > 0, last, 1) if keep else jnp.ones((), dtype),
            largest=constant(jnp.inf if self.max_learning_rate is None else self.max_learning_rate),
            tol=constant(self.tol),
            increase=constant(self.increase_factor),
            decrease=constant(self.slope_rtol),
            curvature=constant(self.curv_rtol),
            approximate=None if self.approx_dec_rtol is None else constant(self.approx_dec_rtol),
            precision=constant(self.stepsize_precision),
        )


def _tell(rules: Rules, slope: Any, found: Any) -> None:
    """Prints which condition is not met, and why."""
    enough, little = found.decrease_error <= rules.tol, found.curvature_error <= rules.tol
    if enough and little:
        return
    lines = [f"`scale_by_zoom_linesearch`: step size {found.tried.rate} after {found.steps} tried, slope at 0 {slope}."]
    if not found.bracketed and found.tried.rate >= rules.largest:
        lines.append(FLAG_INTERVAL_NOT_FOUND)
    if found.bracketed and abs(found.high.rate - found.low.rate) <= rules.precision:
        lines.append(FLAG_INTERVAL_TOO_SMALL)
    lines.append(FLAG_CURVATURE_COND_NOT_SATISFIED if enough else FLAG_NO_STEPSIZE_FOUND)
    if not slope < 0:
        lines.append(FLAG_NOT_A_DESCENT_DIRECTION)
    print("\n  ".join(lines))

"""Newton's method: the step to the stationary point of a quadratic with the function's slope and curvature."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from gradtx import leafwise
from gradtx.clock import ClockState, Hyperparameter, at, tick
from gradtx.combine.chain import chain
from gradtx.core import GradientTransformation, require_params, transformation
from gradtx.linalg.conjugate_gradients import solve_downhill
from gradtx.linalg.spectral import solve_symmetric
from gradtx.partial import on_part
from gradtx.placement import laid_like, whole_everywhere
from gradtx.transforms.scale import scale_by_learning_rate
from gradtx.value import flag, number, static


@transformation
class scale_by_newton(GradientTransformation):
    """Multiplies the updates, all leaves as one vector, by the inverse of a function's Hessian at the parameters.

        u = (|H| + damping I)^-1 g          H: second derivatives of `value_fn`, or first ones of `grad_fn`
        u = (H + damping I)^-1 g            with saddle_free=False, or solver="cg"

    |H| has H's eigenvectors and the absolute values of its eigenvalues: where H is positive definite it is H.

        updates, state = tx.update(jax.grad(loss)(params), state, params, value_fn=loss)

    Args:
      damping: added to every eigenvalue, in units of the Hessian: Levenberg's. Not negative.
      solver: "dense" makes the n x n Hessian and its eigenvectors. Nothing moves along an eigenvector whose eigenvalue,
        damped, is within n eps max|eigenvalue| of 0. "cg" takes conjugate gradients with Hessian-vector products,
        and ends where the curvature is not positive, with the step so far; if it is not positive along g itself,
        u = g / (|c| + damping) with c = g^T H g / |g|^2, or u = g where that is 0.
      saddle_free: for the dense solver. True takes |H|, so that every step descends. False is Newton's original: it
        goes to a stationary point of any kind, saddles and maxima too.
      tolerance: for "cg", of |g - (H + damping I) u| / |g|, in (0, 1).
      max_iterations: for "cg", the largest number of its Hessian-vector products, 1 or more.

    State: the time. Reads: params; `value_fn=`, a function of the parameters that returns a scalar, or `grad_fn=`, one
      that returns its gradients, which is preferred. They are called with the parameters in float32 or wider.
      Where the updates hold None, the parameter is held fixed. A complex parameter is a pair of reals.
    Memory: "dense": temporaries of 12 n^2 bytes in float32, and n tangents of the function at once; some 9 n^3
      operations; parameters on a mesh are gathered. "cg": some 12 n numbers, and what the gradient stores for its
      derivative; per iteration, and once more, a Hessian-vector product, as long as 2 to 3 gradients; parameters stay
      where they are.
    Raises:
      ValueError: neither function, or no params.
    Numbers: finite gradients give no NaN, if H is finite or the solver is "cg". Derivatives with respect to
      hyperparameters are finite also where eigenvalues repeat; within `shard_map`, of "cg", in forward mode only.
    Source: Levenberg, A method for the solution of certain non-linear problems in least squares, 1944; Nocedal, Wright,
      Numerical Optimization, 2006, chapters 3 and 7; Dauphin et al., Identifying and attacking the saddle point
      problem, NeurIPS 2014 (arXiv:1406.2572), where |H| is taken in a Krylov subspace; Dembo, Steihaug, 1983; Martens,
      Deep learning via Hessian-free optimization, ICML 2010, whose Gauss-Newton matrix and damping rules are not here.
    """

    damping: Hyperparameter = number(default=0.0, within="[0, inf)")
    solver: str = static(default="dense", one_of=("dense", "cg"))
    saddle_free: bool = flag(default=True, kw_only=True)
    tolerance: Hyperparameter = number(default=1e-5, within="(0, 1)", kw_only=True)
    max_iterations: int = number(default=100, within="[1, inf)", integer=True, kw_only=True)

    def update(self, updates, state, params=None, **extra):
        params = require_params(params, self)
        damping, tolerance = at(state.count, self.damping, self.tolerance)
        if any(g.size for g in jax.tree.leaves(updates)):
            moving = leafwise.choose(lambda g, p: p, updates, params)
            grad_fn = _gradient(self, on_part(extra, params))
            slope = lambda z: _gradient_parts(grad_fn(_joined(z, moving)))
            g, z = _gradient_parts(updates), _parts(moving)
            if self.solver == "dense":
                u = _solve_dense(slope, z, g, damping, self.saddle_free)
            else:
                _, hessian_product = jax.linearize(slope, z)
                u = solve_downhill(hessian_product, g, damping, tolerance, self.max_iterations)
            updates = jax.tree.map(jnp.conj, _joined(u, updates))
        return updates, ClockState(tick(state.count))


def newton(
    learning_rate: Hyperparameter = 1.0,
    damping: Hyperparameter = 0.0,
    solver: str = "dense",
    *,
    saddle_free: bool = True,
    tolerance: Hyperparameter = 1e-5,
    max_iterations: int = 100,
) -> GradientTransformation:
    """Newton's method for small problems: needs `value_fn=` or `grad_fn=`. Other arguments: `scale_by_newton`.

        p <- p - learning_rate (|H| + damping I)^-1 g

        updates, state = tx.update(jax.grad(loss)(params), state, params, value_fn=loss)

    Args:
      learning_rate: the share of the full step: 1 converges quadratically near a minimum, less is damped Newton.
      damping: Levenberg's; shortens the step, and turns it towards the gradient, where the curvature is small.
    """
    return chain(
        scale_by_newton(damping, solver, saddle_free=saddle_free, tolerance=tolerance, max_iterations=max_iterations),
        scale_by_learning_rate(learning_rate),
    )


def _gradient(tx: GradientTransformation, functions: dict[str, Any]) -> Callable:
    if (grad_fn := functions.get("grad_fn")) is not None:
        return grad_fn
    if (value_fn := functions.get("value_fn")) is not None:
        return jax.grad(value_fn)
    raise ValueError(
        f"`{tx.name}` reads the function that is minimized: call `update(updates, state, params, value_fn=loss)`, "
        "where `loss(params)` is the scalar whose gradients the updates are, or pass `grad_fn=jax.grad(loss)`."
    )


def _solve_dense(slope: Callable, z: Any, g: Any, damping: Any, absolute: bool) -> Any:
    vector = lambda x: ravel_pytree(jax.tree.map(whole_everywhere, x))[0]
    _, unravel = ravel_pytree(jax.tree.map(whole_everywhere, z))
    placed = lambda v: jax.tree.map(laid_like, unravel(v), z)
    h = jax.jacfwd(lambda v: vector(slope(placed(v))))(vector(z))
    return placed(solve_symmetric(h / 2 + h.T / 2, vector(g), damping, absolute))


def _parts(values: Any) -> Any:
    """Complex leaves as pairs of real ones."""
    return jax.tree.map(lambda x: (x.real, x.imag) if jnp.iscomplexobj(x) else x, values)


def _joined(parts: Any, like: Any) -> Any:
    """The inverse of `_parts`."""
    return jax.tree.map(lambda x, part: jax.lax.complex(*part) if jnp.iscomplexobj(x) else part, like, parts)


def _gradient_parts(grads: Any) -> Any:
    """The derivatives in the real and the imaginary parts: JAX returns complex gradients conjugated."""
    return _parts(jax.tree.map(jnp.conj, grads))

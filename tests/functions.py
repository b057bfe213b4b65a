"""Functions of a vector to minimize, convex and not, for JAX and for NumPy; and the loop that minimizes them."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import gradtx

STEPS = 12
RNG = np.random.default_rng(0)


class Function(NamedTuple):
    """A function of a vector."""

    of: Callable  # (numpy or jax.numpy, x) -> value
    gradient: Callable  # of a NumPy array
    start: np.ndarray

    def value(self, x: Any) -> Any:
        """Its value, of NumPy's arrays or JAX's."""
        return self.of(np if isinstance(x, np.ndarray) else jnp, x)

    def __hash__(self) -> int:  # a static argument of jit, where an array is not
        return id(self.of)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Function) and self.of is other.of


Q, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
A = (Q * np.geomspace(0.5, 50, 6)) @ Q.T
B = RNG.normal(size=6)

ROWS = RNG.normal(size=(40, 6)) * RNG.choice([-1.0, 1.0], 40)[:, None]


def _logistic_gradient(x: np.ndarray) -> np.ndarray:
    return -ROWS.T @ (1 / (1 + np.exp(ROWS @ x))) / 40 + 0.01 * x


def _rosenbrock_gradient(x: np.ndarray) -> np.ndarray:
    rest = x[1:] - x[:-1] ** 2
    g = np.zeros_like(x)
    g[1:] += 200 * rest
    g[:-1] += -400 * x[:-1] * rest - 2 * (1 - x[:-1])
    return g


FUNCTIONS = {
    "quadratic": Function(
        lambda xp, x: x @ xp.asarray(A, x.dtype) @ x / 2 - x @ xp.asarray(B, x.dtype), lambda x: A @ x - B, np.ones(6)
    ),
    "logistic": Function(
        lambda xp, x: xp.mean(xp.logaddexp(0.0, -(xp.asarray(ROWS, x.dtype) @ x))) + 0.005 * (x @ x),
        _logistic_gradient,
        np.linspace(-1, 1, 6),
    ),
    "rosenbrock": Function(
        lambda xp, x: xp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2),
        _rosenbrock_gradient,
        np.array([-1.2, 1.0, -1.2, 1.0, -1.2, 1.0]),
    ),
    # 2^n minima, saddles and a maximum
    "double wells": Function(
        lambda xp, x: xp.sum(x**4 - 16 * x**2 + 5 * x) / 2, lambda x: 2 * x**3 - 16 * x + 2.5, np.linspace(-0.9, 0.9, 6)
    ),
}


@functools.partial(jax.jit, static_argnames=("fn", "steps"))
def train(tx, start, fn, steps=STEPS):
    """The parameters after each step, and the state of the chain's last link."""
    return _train(tx, start, fn, steps)


def _train(tx, start, fn, steps=STEPS):
    def step(carry, _):
        params, state = carry
        value, grad = jax.value_and_grad(fn)(params)
        updates, state = tx.update(grad, state, params, value=value, grad=grad, value_fn=fn)
        params = gradtx.apply_updates(params, updates)
        return (params, state), (params, [*state.values()][-1] if isinstance(state, dict) else state[-1])

    return jax.lax.scan(step, (start, tx.init(start)), length=steps)[1]


def same_as_optax(tx, theirs, function: Function, rtol: float = 1e-11) -> Any:
    """Fails unless both chains go the same way in float64. Returns the states of ours' last link.

    A few units of rounding a step, 1e-16, are multiplied by up to the function's condition, some 10^3.
    """
    assert isinstance(theirs, optax.GradientTransformation)
    with jax.enable_x64(True):
        start = jnp.asarray(function.start)
        x, found = jax.device_get(train(tx, start, function.value))
        y, wanted = jax.device_get(jax.jit(lambda start: _train(theirs, start, function.value))(start))
    np.testing.assert_allclose(x, y, rtol=rtol, atol=rtol)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(a, b, rtol=100 * rtol, atol=100 * rtol)  # gradients magnify, where they cancel
    return found

"""Gradient descent on one variable: y = x^2 - x - 2.

The derivative 2x - 1 is 0 at x = 1/2, where y = -9/4. A step x <- x - a (2x - 1) multiplies the distance to 1/2 by
1 - 2a: it creeps for small rates, arrives at once for a = 1/2, jumps to the other side above that, diverges above 1.
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from examples.textbook import picture, study

RATES = {"small": 0.02, "good": 0.3, "oscillating": 0.9, "diverging": 1.03}
START = 3.0
STEPS = 30


def y(x):
    """The textbook's function."""
    return x**2 - x - 2


class Found(NamedTuple):
    """The way of each rate, float64 `[rates, steps + 1]`."""

    x: np.ndarray


def measure(quick: bool) -> Found:
    """Descends with every rate at once: the transformation is stacked, and `vmap` makes one program of it."""
    steps = 12 if quick else STEPS

    def descend(tx):
        def step(carry, _):
            x, state = carry
            updates, state = tx.update(jax.grad(y)(x), state, x)
            x = gradtx.apply_updates(x, updates)
            return (x, state), x

        x = jnp.array(START)
        _, xs = jax.lax.scan(step, (x, tx.init(x)), length=steps)
        return jnp.concatenate([x[None], xs])

    with jax.enable_x64():
        return Found(np.asarray(jax.jit(jax.vmap(descend))(gradtx.sgd(jnp.array([*RATES.values()])))))


def report(found: Found) -> study.Report:
    """Where each rate ends, beside the formula."""
    steps = found.x.shape[1] - 1
    rows = []
    for (name, rate), x in zip(RATES.items(), found.x, strict=True):
        expected = 0.5 + (1 - 2 * rate) ** steps * (START - 0.5)
        rows.append([name, rate, 1 - 2 * rate, f"{x[-1]:.9f}", f"{y(x[-1]):.9f}", f"{abs(x[-1] - expected):.0e}"])
    columns = ["rate", "a", "factor 1 - 2a", f"x after {steps} steps", "y", "distance from the formula"]

    figure, ((left, right),) = picture.panels(2)
    grid = np.linspace(-2.2, 3.2, 200)
    left.plot(grid, y(grid), color=picture.INK, linewidth=1)
    for (name, rate), x, colour in zip(RATES.items(), found.x, picture.COLOURS, strict=False):
        seen = x[np.abs(x - 0.5) < 2.7][:9]
        left.plot(seen, y(seen), "o-", color=colour, markersize=3, linewidth=1, label=f"{name}, a = {rate:g}")
        right.semilogy(np.abs(x - 0.5), color=colour, label=f"{name}, a = {rate:g}", linewidth=1.6)
    picture.label(left, "the first steps", "x", "y = x² - x - 2")
    picture.label(right, "distance to the minimum", "step", "|x - 1/2|")
    picture.legend(right, loc="lower left")
    return study.Report([study.Table("Gradient descent from x = 3", columns, rows)], {"one_variable": figure})


if __name__ == "__main__":
    sys.exit(study.main("one_variable"))

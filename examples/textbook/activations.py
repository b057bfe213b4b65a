"""Activation functions and their derivatives.

A layer whose weights have variance c / n turns inputs z of variance 1 into sums of variance c E[f(z)^2], and on the way
back multiplies the variance of gradients by c E[f'(z)^2], z ~ N(0, 1). So the function decides the initialization:
c = 1 / E[f(z)^2] keeps the signal, c = 1 / E[f'(z)^2] keeps the gradient.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from examples.textbook import picture, study

FUNCTIONS: dict[str, Callable] = {
    "ReLU": jax.nn.relu,
    "leaky ReLU": jax.nn.leaky_relu,
    "ELU": jax.nn.elu,
    "GELU": lambda z: jax.nn.gelu(z, approximate=False),
    "SiLU": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}
FAR = 800.0  # as good as infinity: beyond it exp(-z) is 0 in float64
LAYERS = 50


class Found(NamedTuple):
    """What is known of each function, float64; the first axis is the function, in the order of `FUNCTIONS`."""

    z: np.ndarray  # a grid from -8 to 8
    f: np.ndarray  # [functions, grid]
    slope: np.ndarray  # [functions, grid]
    ends: np.ndarray  # f at -FAR, -FAR / 2, FAR / 2 and FAR, [functions, 4]
    steepest: np.ndarray  # the largest slope, far out included
    at_zero: np.ndarray  # the slope just left of 0, as JAX defines it at 0, just right of 0, [functions, 3]
    signal: np.ndarray  # E[f(z)^2]
    gradient: np.ndarray  # E[f'(z)^2]


def gaussian_quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes z and weights w, float64, with E[f(z)] = sum w f(z) for z ~ N(0, 1): Gauss-Legendre on each side of 0.

    Gauss-Hermite quadrature would do for smooth functions; most of these have a kink at 0, where it converges slowly.
    """
    nodes, weights = np.polynomial.legendre.leggauss(120)
    nodes = 5 * (nodes + 1)  # from [-1, 1] to [0, 10]; what lies beyond is below 1e-22
    weights = 5 * weights * np.exp(-(nodes**2) / 2) / np.sqrt(2 * np.pi)
    return np.concatenate([-nodes[::-1], nodes]), np.concatenate([weights[::-1], weights])


def with_slope(f: Callable, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """f(z) and f'(z) in float64, z of shape `[n]`."""
    with jax.enable_x64():
        value, slope = jax.jit(jax.vmap(jax.value_and_grad(f)))(jnp.asarray(z))
    return np.asarray(value), np.asarray(slope)


def measure(quick: bool) -> Found:
    """Evaluates functions, derivatives and their second moments; `quick` draws a coarser grid."""
    z = np.linspace(-8, 8, 1601 if quick else 16001)
    nodes, weights = gaussian_quadrature()
    parts = [z, np.array([-FAR, -FAR / 2, FAR / 2, FAR]), np.array([-1e-9, 0.0, 1e-9]), nodes]
    splits = np.cumsum([len(part) for part in parts])[:-1]
    rows = []
    for f in FUNCTIONS.values():
        (values, ends, _, at_nodes), (slopes, far, near, slopes_at_nodes) = (
            np.split(x, splits) for x in with_slope(f, np.concatenate(parts))
        )
        moments = [weights @ at_nodes**2, weights @ slopes_at_nodes**2]
        rows.append((values, slopes, ends, max(slopes.max(), far.max()), near, *moments))
    return Found(z, *(np.array(column) for column in zip(*rows, strict=True)))


def value_range(f: np.ndarray, ends: np.ndarray) -> str:
    """The range as an interval: closed where the end is reached at a finite z, infinite where f still moves far out."""
    low, high = min(f.min(), ends[0]), max(f.max(), ends[-1])
    left = "(-inf" if abs(ends[0] - ends[1]) > 1 else f"{'[' if f.min() <= low else '('}{_rounded(low)}"
    right = "inf)" if abs(ends[-1] - ends[-2]) > 1 else f"{_rounded(high)}{']' if f.max() >= high else ')'}"
    return f"{left}, {right}"


def _rounded(x: float) -> str:
    return f"{x + 0.0:.3g}"  # -0 is 0


def report(found: Found) -> study.Report:
    """The table of moments, and each function above its slope."""
    rows = []
    for i, name in enumerate(FUNCTIONS):
        left, jaxs, right = found.at_zero[i]
        slope = f"{left:.3g}" if abs(right - left) < 1e-6 else f"{left:.3g} left, {right:.3g} right; JAX: {jaxs:.3g}"
        moments = [found.signal[i], found.gradient[i], 1 / found.signal[i], 1 / found.gradient[i]]
        rows.append([name, value_range(found.f[i], found.ends[i]), slope, found.steepest[i], *moments])
    columns = ["f", "range", "slope at 0", "largest slope", "E[f²]", "E[f'²]", "c for the signal", "c for the gradient"]

    figure, grid = picture.panels(4, 2, width=2.5, height=2.2)
    shown = np.abs(found.z) <= 4
    for i, (name, axes) in enumerate(zip(FUNCTIONS, grid.flat, strict=True)):
        axes.plot(found.z[shown], found.f[i, shown], color=picture.BLUE, linewidth=1.8, label="f")
        # A jump is drawn as a gap.
        jumps = np.abs(np.diff(found.slope[i, shown], append=found.slope[i, shown][-1])) > 0.5
        slope = np.where(jumps, np.nan, found.slope[i, shown])
        axes.plot(found.z[shown], slope, color=picture.ORANGE, linewidth=1.8, label="f'")
        axes.set_ylim(-1.2, 2.2)
        picture.label(axes, name)
    picture.legend(grid[0, 0], loc="upper left")
    return study.Report([study.Table("z ~ N(0, 1)", columns, rows)], {"activations": figure}, _findings(found))


def _findings(found: Found) -> list[str]:
    names = np.array([*FUNCTIONS])
    steep = names[found.steepest > 1 + 1e-6]
    alike = names[np.abs(found.signal / found.gradient - 1) < 1e-6]
    flattest = int(np.argmin(found.gradient))
    shrink = found.gradient[flattest] ** LAYERS
    rest = ", ".join(names[~np.isin(names, alike)])
    return [
        f"One c keeps both the signal and the gradient for {' and '.join(alike)} alone; for {rest} the two differ.",
        f"Slopes above 1 exist: {', '.join(f'{n} ({found.steepest[names == n][0]:.3f})' for n in steep)}.",
        f"{names[flattest]} passes least back: with weights of variance 1 / n and sums of variance 1, {LAYERS} layers "
        f"multiply the gradient's variance by {found.gradient[flattest]:.4f}^{LAYERS} = {shrink:.0e}.",
    ]


if __name__ == "__main__":
    sys.exit(study.main("activations"))

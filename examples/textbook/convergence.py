"""How fast stochastic gradient descent converges.

Gradients have independent noise of variance s^2 in each coordinate. For convex f with L-smooth gradient and steps
a / sqrt(t), theory bounds E f - f* by O(1 / sqrt(T)), apart from a logarithm; for mu-strongly convex f and steps
1 / (mu t), by O(s^2 / (mu T)). A bound says how slow it can be, not how slow it is, so the exponent is measured: the
slope of log(mean error) over log(T), with a 95 % interval from a bootstrap over the seeds.
Near a minimum, steps a_t keep E x f'(x) at a_t s^2 / 2; so the last iterate's error is a_t s^2 / (2 p) per coordinate
where f grows like |x|^p, whatever the curvature: with steps a / sqrt(t) the bound is the behaviour.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

import gradtx
from examples.textbook import picture, spread, study

SIZE = 8  # coordinates, independent of each other
RATE = 0.5  # a, for steps a / sqrt(t)
FLATTEST = 1e-4  # of the valleys: at any time some coordinate is too flat to have arrived
MUS, SIGMAS = (0.03, 0.1, 0.3, 1.0), (0.5, 1.0)
FACTORS = (0.25, 1.0, 2.0)  # c, for steps c / (mu t)
ITERATES = ("last", "average")
AGREES = "as the theory says"


POWERS = {"Huber": 2.0, "flat, x^4": 4.0}
CONVEX = (*POWERS, "valleys")


def power(p: Array | float) -> Callable[[Array], Array]:
    """|x|^p / p up to |x| = 1, then its tangents: convex, L = p - 1. For p = 2 Huber's function, for p = 4 flat."""
    return lambda x: jnp.sum(jnp.where(jnp.abs(x) < 1, jnp.abs(x) ** p / p, jnp.abs(x) - 1 + 1 / p))


def quadratic(curvatures: Array) -> Callable[[Array], Array]:
    """The sum of h x^2 / 2 over the curvatures h."""
    return lambda x: jnp.sum(curvatures * x**2) / 2


class Found(NamedTuple):
    """Errors f - f* of the last iterate and of the iterates' average, after `ends` updates.

    Attributes:
      ends: counts of updates, `[points]`.
      convex: by function, `[seeds, points, 2]`.
      strongly: for steps 1 / (mu t), `[mus, sigmas, seeds, points, 2]`.
      factors: for steps c / (mu t), mu = 0.1 and noise 1, `[factors, seeds, points, 2]`.
      slow: the same function with steps a / sqrt(t), `[seeds, points, 2]`.
    """

    ends: np.ndarray
    convex: dict[str, np.ndarray]
    strongly: np.ndarray
    factors: np.ndarray
    slow: np.ndarray


def follow(tx: gradtx.GradientTransformation, f: Callable[[Array], Array], ends: Array) -> Array:
    """f at the last iterate and at the average of the iterates, after each of `ends` updates from (1, ..., 1)."""

    def step(t, carry):
        x, mean, state = carry
        updates, state = tx.update(jax.grad(f)(x), state, x)
        x = gradtx.apply_updates(x, updates)
        return x, mean + (x - mean) / (t + 1), state

    def stretch(carry, bounds):
        begin, end = bounds
        x, mean, state = jax.lax.fori_loop(begin, end, step, carry)
        return (x, mean, state), jnp.stack([f(x), f(mean)])

    start = jnp.ones(SIZE)
    starts = jnp.concatenate([jnp.zeros(1, ends.dtype), ends[:-1]])
    return jax.lax.scan(stretch, (start, start, tx.init(start)), (starts, ends))[1]


def curvatures(mu: Array | float) -> Array:
    """From mu to L = 1, in equal ratios."""
    return mu ** jnp.linspace(1, 0, SIZE)


def decaying(rate: gradtx.Schedule, sigma: Array | float, seed: Array) -> gradtx.GradientTransformation:
    """SGD on gradients with noise."""
    return gradtx.chain(gradtx.add_noise(sigma**2, 0.0, seed), gradtx.sgd(rate))


def measure(quick: bool) -> Found:
    """Every function is one program; seeds, mu, noise and c are axes of `vmap`."""
    seeds, ends = jnp.arange(16 if quick else 64), jnp.array(2 ** np.arange(4, 11 if quick else 17))

    def slowly(make, shapes):
        run = lambda shape, seed: follow(decaying(gradtx.inverse_sqrt_decay(RATE), 1.0, seed), make(shape), ends)
        return np.asarray(jax.jit(jax.vmap(jax.vmap(run, (None, 0)), (0, None)))(shapes, seeds))

    def strongly(mu, sigma, factor, seed):
        # 1 / (1 + mu t / c) = c / (mu (t + c / mu)): the first step is 1 / L
        tx = decaying(gradtx.inverse_time_decay(1.0, mu / factor), sigma, seed)
        return follow(tx, quadratic(curvatures(mu)), ends)

    table = [(mu, sigma, 1.0) for mu in MUS for sigma in SIGMAS] + [(0.1, 1.0, factor) for factor in FACTORS]
    over_seeds = jax.vmap(strongly, (None, None, None, 0))
    errors = np.asarray(jax.jit(jax.vmap(over_seeds, (0, 0, 0, None)))(*jnp.array(table).T, seeds))
    valleys, slow = slowly(quadratic, jnp.stack([curvatures(FLATTEST), curvatures(0.1)]))
    split = len(MUS) * len(SIGMAS)
    return Found(
        np.asarray(ends),
        dict(zip(CONVEX, [*slowly(power, jnp.array([*POWERS.values()])), valleys], strict=True)),
        errors[:split].reshape(len(MUS), len(SIGMAS), *errors.shape[1:]),
        errors[split:],
        slow,
    )


class Slope(NamedTuple):
    """A fitted exponent and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def fitted(ends: np.ndarray, errors: np.ndarray, resamples: int = 2000) -> Slope:
    """The slope of log(mean over seeds) over log(T), from a third of the points on; errors: `[seeds, points]`."""
    late = slice(len(ends) // 3, None)
    x = np.log(ends[late]) - np.log(ends[late]).mean()
    drawn = np.random.default_rng(0).multinomial(len(errors), np.full(len(errors), 1 / len(errors)), resamples)
    weights = np.concatenate([np.ones((1, len(errors))), drawn]) / len(errors)  # the first row: every seed once
    slopes = np.log(weights @ errors[:, late].astype(float)) @ x / (x @ x)
    return Slope(slopes[0], *np.quantile(slopes[1:], [0.025, 0.975]))


def verdict(slope: Slope, theory: float, near: float = 0.05) -> str:
    """How an exponent compares with the theory's: its interval, widened by `near`, holds it or not."""
    if slope.low <= theory + near and slope.high >= theory - near:
        return AGREES
    return "steeper" if slope.value < theory else "flatter"


def constant(mu: float, factor: float = 1.0) -> float:
    """What E (f - f*) mu T / s^2 tends to with steps c / (mu t): the sum of c q / (2 (2 q - 1)), q = c h / mu."""
    q = factor * np.asarray(curvatures(mu), float) / mu
    return float(np.sum(factor * q / (2 * (2 * q - 1))))


class Exponent(NamedTuple):
    """One row of the table: the bound's (or the formula's) exponent and the measured one."""

    what: str
    iterate: str
    theory: float
    slope: Slope


def exponents(found: Found) -> list[Exponent]:
    """All that was measured, in the table's order."""
    roots, times = "steps a / sqrt(t)", "steps 1 / (mu t)"
    sources = [(f"convex: {name}; {roots}", errors, -0.5) for name, errors in found.convex.items()]
    sources += [(f"strongly convex, mu = {mu:g}; {times}", found.strongly[i, -1], -1.0) for i, mu in enumerate(MUS)]
    sources += [
        (f"mu = 0.1; steps c / (mu t), c = {factor:g}", errors, -min(1.0, 2 * factor))
        for factor, errors in zip(FACTORS, found.factors, strict=True)
        if factor != 1  # it stands above
    ]
    sources.append((f"mu = 0.1; {roots}", found.slow, -0.5))
    return [
        Exponent(what, which, theory, fitted(found.ends, errors[..., i]))
        for what, errors, theory in sources
        for i, which in enumerate(ITERATES)
    ]


def report(found: Found) -> study.Report:
    """Exponents beside the theory's, and the error's dependence on mu and the noise."""
    measured = exponents(found)
    seeds, last = len(found.slow), int(found.ends[-1])
    rows = [[e.what, e.iterate, f"{e.theory:g}", str(e.slope), verdict(e.slope, e.theory)] for e in measured]
    slopes = study.Table(
        f"Exponents of T, {seeds} seeds, T = {found.ends[len(found.ends) // 3]} to {last}",
        ["function and steps", "iterate", "theory", "measured (95 % interval)", "it is"],
        rows,
    )
    scaled = found.strongly[..., -1, 0] * last / np.square(SIGMAS)[:, None] * np.array(MUS)[:, None, None]
    rows = [[f"{mu:g}", *[spread.mean(x) for x in of_mu], constant(mu)] for mu, of_mu in zip(MUS, scaled, strict=True)]
    columns = ["mu", *[f"noise s = {sigma:g}" for sigma in SIGMAS], "formula, large T"]
    constants = study.Table(f"E (f - f*) mu T / s^2 of the last iterate, T = {last}", columns, rows)
    return study.Report([slopes, constants], {"convergence": _picture(found)}, findings(found, measured))


def findings(found: Found, measured: list[Exponent]) -> list[str]:
    """What the exponents and the constants say."""
    told = []
    kinds = [verdict(e.slope, e.theory) for e in measured]
    for kind in dict.fromkeys(kinds):
        those = [e for e, of in zip(measured, kinds, strict=True) if of == kind]
        names = ", ".join(f"{e.what}, {e.iterate} ({e.slope.value:.2f})" for e in those)
        told.append(f"{len(those)} of {len(measured)} exponents: {kind}" + ("." if kind == AGREES else f": {names}."))
    at_end = {name: found.convex[name][:, -1, 0] / SIZE * np.sqrt(found.ends[-1]) / RATE for name in POWERS}
    told += [
        f"{name}: the last iterate's error per coordinate, over a s^2 / sqrt(T), is {spread.mean(errors)}, "
        f"by the formula 1 / (2 p) = {1 / (2 * POWERS[name]):.3g}."
        for name, errors in at_end.items()
    ]
    finals = found.strongly[:, -1, :, -1, 0].mean(axis=-1)
    scaled = finals * np.array(MUS)
    told.append(
        f"With steps 1 / (mu t) the error changes {finals.max() / finals.min():.1f} times from mu = {MUS[0]:g} to "
        f"{MUS[-1]:g}, mu T error / s^2 only {scaled.max() / scaled.min():.2f} times."
    )
    of_right = [found.factors[0, :, -1, 0].mean(), *found.slow[:, -1].mean(axis=0)] / finals[MUS.index(0.1)]
    wrong, last, average = (f"{x:.1f} times" for x in of_right)
    told.append(
        f"Taking mu {1 / FACTORS[0]:g} times too large (c = {FACTORS[0]:g}) gives {wrong} the error of the right mu "
        f"after {found.ends[-1]} updates. Steps a / sqrt(t), which need no mu, give {last} in the last iterate and "
        f"{average} in the average."
    )
    return told


def _picture(found: Found):
    figure, ((convex, strong), (scaled, other)) = picture.panels(2, 2)
    ends = found.ends
    for (name, errors), colour in zip(found.convex.items(), picture.COLOURS, strict=False):
        for i, line in enumerate(("-", "--")):
            label = name if i == 0 else f"{name}: average"
            convex.loglog(ends, errors[..., i].mean(axis=0), line, color=colour, label=label, linewidth=1.5)
    convex.loglog(ends, 0.2 * SIZE * RATE / np.sqrt(ends), ":", color=picture.INK, label="T^(-1/2)")
    for mu, of_mu, colour in zip(MUS, found.strongly, picture.COLOURS, strict=False):
        strong.loglog(ends, of_mu[-1, ..., 0].mean(axis=0), color=colour, label=f"mu = {mu:g}", linewidth=1.5)
        for sigma, errors, line in zip(SIGMAS, of_mu, (":", "-"), strict=True):
            scaled.semilogx(ends, errors[..., 0].mean(axis=0) * ends * mu / sigma**2, line, color=colour, linewidth=1.5)
        scaled.plot(ends[-1] * 1.6, constant(mu), "<", color=colour, markersize=6)
    strong.loglog(ends, SIZE / 4 / ends, ":", color=picture.INK, label="T^(-1)")
    for factor, errors, colour in zip(FACTORS, found.factors, picture.COLOURS, strict=False):
        other.loglog(ends, errors[..., 0].mean(axis=0), color=colour, label=f"c = {factor:g}", linewidth=1.5)
    for i, (which, line) in enumerate(zip(ITERATES, ("-", "--"), strict=True)):
        errors = found.slow[..., i].mean(axis=0)
        other.loglog(ends, errors, line, color=picture.PURPLE, label=f"a / sqrt(t), {which}", linewidth=1.5)
    picture.label(convex, "convex, steps a / sqrt(t)", "updates T", "mean error f - f*")
    picture.label(strong, "strongly convex, steps 1 / (mu t)", "updates T", "mean error, s = 1")
    picture.label(scaled, "the same, scaled", "updates T  (dotted: s = 0.5; ◂ formula)", "error mu T / s²")
    picture.label(other, "mu = 0.1, steps c / (mu t)", "updates T", "mean error, s = 1")
    for axes in (convex, strong, other):
        picture.legend(axes, loc="lower left", fontsize=7)
    scaled.set_ylim(0, None)
    return figure


if __name__ == "__main__":
    sys.exit(study.main("convergence"))

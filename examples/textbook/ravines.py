"""Ravines and saddles: where methods differ.

A ravine is a quadratic with curvatures 1 and k; here it lies at 30 degrees to the axes. Gradient descent with its best
rate, 2 / (1 + k), needs some k / 2 updates to shrink the distance e times; momentum with its best rate and decay some
sqrt(k) / 2; Newton's step ends in the minimum. The saddle x^2 - y^2 (with y^4 / 4 added it has minima, f = -1) holds
whoever starts on its line y = 0, until noise pushes. Newton's original goes into it; with |H| for H it leaves.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from examples.textbook import picture, study

CONDITIONS = (1.0, 10.0, 100.0, 1000.0, 10_000.0)
ANGLES = (np.pi / 6, 0.0)  # of the ravine to the axes
NEAR = 1e-3  # of the minimum; the start is sqrt(2) from it
DECAYS = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99)
SADDLE_RATE, NOISE, WALK = 0.05, 1e-6, 1000
SHOWN = CONDITIONS.index(10.0)

Method = Callable[[Any, Any], gradtx.GradientTransformation]  # of rate and decay
METHODS: dict[str, Method] = {
    "SGD": lambda rate, decay: gradtx.sgd(rate),
    "momentum": lambda rate, decay: gradtx.sgd(rate, decay),
    "Nesterov": lambda rate, decay: gradtx.sgd(rate, decay, nesterov=True),
    "RMSprop": lambda rate, decay: gradtx.rmsprop(rate),
    "Adam": lambda rate, decay: gradtx.adam(rate),
    "Newton": lambda rate, decay: gradtx.newton(),
}
ORIGINAL = "Newton, original"
AT_SADDLES = METHODS | {ORIGINAL: lambda rate, decay: gradtx.newton(saddle_free=False)}
TUNED = {"momentum", "Nesterov"}  # in their decay too
SADDLES = {"with minima": 1.0, "without": 0.0}  # the factor of y^4 / 4
LEVELS = {"with minima": -0.9, "without": -1.0}  # f below it: the saddle is left
STARTS = {  # y, and whether noise pushes
    "on the line": (0.0, False),
    f"on the line, noise {NOISE:g}": (0.0, True),
    f"{NOISE:g} beside": (NOISE, False),
}


class Surface(NamedTuple):
    """(a u^2 + b v^2) / 2 + c v^4 / 4, where u and v are x and y turned by an angle."""

    a: Any
    b: Any
    c: Any = 0.0
    angle: Any = 0.0

    def __call__(self, p: Any) -> Any:
        cos, sin = jnp.cos(self.angle), jnp.sin(self.angle)
        u, v = cos * p[..., 0] + sin * p[..., 1], cos * p[..., 1] - sin * p[..., 0]
        return (self.a * u**2 + self.b * v**2) / 2 + self.c * v**4 / 4


class Best(NamedTuple):
    """The fewest updates of a grid until the distance stays below `NEAR`, inf if none got there, and their rate."""

    steps: np.ndarray  # [conditions, angles]
    rate: np.ndarray
    decay: np.ndarray


class Found(NamedTuple):
    """What was measured.

    Attributes:
      most: updates that a method had in a ravine.
      ravines: the tuned methods.
      paths: in the shown ravine, `[steps + 1, 2]`.
      leaving: by method, updates to leave a saddle, inf if it did not, `[saddles, starts, seeds]`.
      saddle_paths: from beside the line of the saddle with minima, `[steps + 1, 2]`.
    """

    most: int
    ravines: dict[str, Best]
    paths: dict[str, np.ndarray]
    leaving: dict[str, np.ndarray]
    saddle_paths: dict[str, np.ndarray]


def advance(tx: gradtx.GradientTransformation, f: Surface, p: Any, state: Any, push: Any = 0.0) -> tuple[Any, Any]:
    """One update; the push is added to the gradient."""
    updates, state = tx.update(jax.grad(f)(p) + push, state, p, value_fn=f)
    return gradtx.apply_updates(p, updates), state


def arrival(tx: gradtx.GradientTransformation, f: Surface, most: int) -> Any:
    """Updates until the distance to 0 stays below `NEAR`, from u = v = 1; inf where it does not within `most`."""

    def step(t, carry):
        p, state, steps = carry
        p, state = advance(tx, f, p, state)
        return p, state, jnp.where(jnp.linalg.norm(p) < NEAR, steps, t + 1)  # NaN is not near

    start = jnp.stack([jnp.cos(f.angle) - jnp.sin(f.angle), jnp.cos(f.angle) + jnp.sin(f.angle)])
    *_, steps = jax.lax.fori_loop(0, most, step, (start, tx.init(start), 0))
    return jnp.where(steps < most, steps + 1.0, jnp.inf)


def walk(tx: gradtx.GradientTransformation, f: Surface, start: Any, pushes: Any) -> Any:
    """Where each update leads, `[steps + 1, 2]`; the pushes, `[steps, 2]`, are added to the gradients."""

    def step(carry, push):
        p, state = carry
        p, state = advance(tx, f, p, state, push)
        return (p, state), p

    _, points = jax.lax.scan(step, (start, tx.init(start)), pushes)
    return jnp.concatenate([start[None], points])


@jax.jit
def noise(seeds: Any) -> Any:
    """What pushes: independent normal numbers of deviation `NOISE`, `[seeds, WALK, 2]`."""

    def of(seed):
        tx = gradtx.add_noise(NOISE**2, 0.0, seed)

        def step(state, _):
            push, state = tx.update(jnp.zeros(2), state)
            return state, push

        return jax.lax.scan(step, tx.init(jnp.zeros(2)), length=WALK)[1]

    return jax.vmap(of)(seeds)


def tuned(name: str, rates: np.ndarray, most: int) -> Best:
    """The best of a grid of rates (and decays), in every ravine, all in one program."""
    decays = np.array(DECAYS if name in TUNED else [0.9])
    rates, most = (np.ones(1), 10) if name == "Newton" else (rates, most)
    grid = np.stack(np.meshgrid(rates, decays, CONDITIONS, ANGLES, indexing="ij"), axis=-1).astype(np.float32)

    def run(rate, decay, condition, angle):
        return arrival(METHODS[name](rate, decay), Surface(1.0, condition, 0.0, angle), most)

    steps = np.asarray(jax.jit(jax.vmap(run))(*grid.reshape(-1, 4).T)).reshape(-1, len(CONDITIONS), len(ANGLES))
    rate, decay = (grid[..., i].reshape(steps.shape) for i in range(2))
    best = steps.argmin(axis=0)[None]
    return Best(*(np.take_along_axis(x, best, axis=0)[0] for x in (steps, rate, decay)))


def measure(quick: bool) -> Found:
    """A method in all ravines is one program, and its walks at the saddles and in the shown ravine another."""
    most, seeds = (500, 3) if quick else (10_000, 20)
    rates = np.geomspace(3e-5, 3, 12 if quick else 52)
    ravines = {name: tuned(name, rates, most) for name in METHODS}
    paths, leaving, saddle_paths = {}, {}, {}
    pushes = np.asarray(noise(jnp.arange(seeds)))  # the same for all methods
    corner = np.array([np.cos(ANGLES[0]) - np.sin(ANGLES[0]), np.cos(ANGLES[0]) + np.sin(ANGLES[0])])
    for name, method in AT_SADDLES.items():
        best = ravines.get(name, ravines["Newton"])
        ravine = Surface(1.0, CONDITIONS[SHOWN], 0.0, ANGLES[0])
        shown = (best.rate[SHOWN, 0], best.decay[SHOWN, 0], ravine, corner, 0 * pushes[0])
        cases = [shown] + [
            (SADDLE_RATE, 0.9, Surface(2.0, -2.0, c), np.array([1.0, y]), push * noisy)
            for c in SADDLES.values()
            for y, noisy in STARTS.values()
            for push in pushes
        ]
        run = lambda rate, decay, *case, method=method: walk(method(rate, decay), *case)
        stacked = jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *cases)
        points = np.asarray(jax.jit(jax.vmap(run))(*stacked))
        paths[name] = points[0]
        walks = points[1:].reshape(len(SADDLES), len(STARTS), seeds, WALK + 1, 2)
        saddle_paths[name] = walks[0, 2, 0]
        leaving[name] = np.stack([left(walks[i], saddle) for i, saddle in enumerate(SADDLES)])
    del paths[ORIGINAL]  # in a ravine it is Newton
    return Found(most, ravines, paths, leaving, saddle_paths)


def left(walks: np.ndarray, saddle: str) -> np.ndarray:
    """Updates until f is below the saddle's level, inf where it never is; walks: `[..., steps + 1, 2]`."""
    below = np.asarray(Surface(2.0, -2.0, SADDLES[saddle])(jnp.asarray(walks))) < LEVELS[saddle]
    return np.where(below.any(axis=-1), below.argmax(axis=-1), np.inf)


def report(found: Found) -> study.Report:
    """Updates against condition, updates to leave a saddle."""
    columns = ["method", *[f"k = {k:g}" for k in CONDITIONS]]
    rows = [[name, *[cell(best, i, 0, name) for i in range(len(CONDITIONS))]] for name, best in found.ravines.items()]
    rows += [
        [f"{name}, ravine along an axis", *[cell(found.ravines[name], i, 1, name) for i in range(len(CONDITIONS))]]
        for name in ("RMSprop", "Adam")
    ]
    ravines = study.Table(
        f"Updates until the distance, at first 1.41, stays below {NEAR:g}, of at most {found.most} (the best rate of "
        "a grid; of momentum and Nesterov also the decay)",
        columns,
        rows,
    )
    columns = ["method", *[f"{saddle}: {start}" for saddle in SADDLES for start in STARTS]]
    rows = [[name, *[leaving(x) for x in steps.reshape(-1, steps.shape[-1])]] for name, steps in found.leaving.items()]
    levels = " and ".join(f"{level:g} {saddle}" for saddle, level in LEVELS.items())
    saddles = study.Table(
        f"Updates until f is below {levels}, of at most {WALK}, from x = 1, with rate {SADDLE_RATE:g} and Newton's 1; "
        f"noise: median of {found.leaving['SGD'].shape[-1]} seeds (range)",
        columns,
        rows,
    )
    return study.Report([ravines, saddles], {"ravines": _picture(found)}, findings(found))


def cell(best: Best, i: int, angle: int, name: str) -> str:
    """Updates, and the rate and decay that needed so few."""
    if not np.isfinite(best.steps[i, angle]):
        return "not reached"
    decay = f", {best.decay[i, angle]:g}" if name in TUNED else ""
    return f"{best.steps[i, angle]:g} ({best.rate[i, angle]:.2g}{decay})"


def leaving(steps: np.ndarray) -> str:
    """The median over seeds and their range, or that it stayed."""
    if np.isinf(steps).all():
        return "never"
    low, high = steps.min(), steps.max()
    return f"{np.median(steps):g}" + (f" ({low:g} to {high:g})" if low < high else "")


def growth(best: Best) -> float:
    """The exponent of k in the updates, from the ravines of k >= 10 where it arrived; NaN for fewer than 3."""
    seen = np.isfinite(best.steps[:, 0]) & (np.array(CONDITIONS) >= 10)
    if seen.sum() < 3:
        return float("nan")
    return float(np.polyfit(np.log(np.array(CONDITIONS)[seen]), np.log(best.steps[seen, 0]), 1)[0])


def findings(found: Found) -> list[str]:
    """What the tables say."""
    exponents = {name: growth(best) for name, best in found.ravines.items()}
    told = [
        "From k = 10 on the updates grow like k to the power "
        + ", ".join(f"{x:.2f} ({name})" for name, x in exponents.items() if np.isfinite(x))
        + "; theory has 1 for SGD, 1/2 for tuned momentum, 0 for Newton."
    ]
    for name in ("RMSprop", "Adam"):
        turned, along = found.ravines[name].steps[-1]
        of = lambda steps: f"{steps:g} updates" if np.isfinite(steps) else "more than it had"
        told.append(
            f"For k = {CONDITIONS[-1]:g} {name} needs {of(turned)} in the turned ravine, {of(along)} along an axis."
        )
    stuck = [name for name, steps in found.leaving.items() if np.isinf(steps[:, 0]).all()]
    never = [name for name, steps in found.leaving.items() if np.isinf(steps).all()]
    freed = [
        name for name, steps in found.leaving.items() if np.isinf(steps[:, 0]).all() and np.isfinite(steps[:, 1:]).all()
    ]
    told.append(
        f"Started on the line, {len(stuck)} of {len(found.leaving)} methods stay for all {WALK} updates; noise "
        f"of {NOISE:g} frees {', '.join(freed) or 'none'}; never free: {', '.join(never) or 'none'}."
    )
    medians = {name: float(np.median(steps[0, 2])) for name, steps in found.leaving.items() if name not in never}
    first = min(medians, key=medians.__getitem__)
    told.append(
        f"From {NOISE:g} beside the line {first} is the first to leave, after {medians[first]:g} updates; SGD needs "
        f"{medians['SGD']:g}."
    )
    return told


def _picture(found: Found):
    figure, ((ravine, arrivals), (saddle, heights)) = picture.panels(2, 2, height=2.9)
    x, y = np.meshgrid(np.linspace(-0.7, 1.6, 120), np.linspace(-0.6, 1.5, 120))
    _contours(ravine, x, y, Surface(1.0, CONDITIONS[SHOWN], 0.0, ANGLES[0]), np.geomspace(0.01, 10, 5))
    for name, points in found.paths.items():
        ravine.plot(*points[:25].T, ".-", color=picture.METHODS[name], markersize=3, linewidth=1, label=name)
    ravine.set(xlim=(-0.7, 1.6), ylim=(-0.6, 1.5))
    x, y = np.meshgrid(np.linspace(-0.3, 1.1, 120), np.linspace(-0.2, 1.9, 120))
    _contours(saddle, x, y, Surface(2.0, -2.0, 1.0), np.linspace(-1, 1, 7))
    surface = Surface(2.0, -2.0, 1.0)
    for name, points in found.saddle_paths.items():
        colour, line = (picture.PINK, ":") if name == ORIGINAL else (picture.METHODS[name], "-")
        saddle.plot(*points.T, line, color=colour, linewidth=1.4)
        heights.plot(np.asarray(surface(jnp.asarray(points[:220]))), line, color=colour, linewidth=1.4, label=name)
    saddle.set(xlim=(-0.3, 1.1), ylim=(-0.2, 1.9))
    heights.set_ylim(-1.1, 1.4)
    for name, best in found.ravines.items():
        seen = np.isfinite(best.steps[:, 0])
        arrivals.loglog(
            np.array(CONDITIONS)[seen], best.steps[seen, 0], "o-", color=picture.METHODS[name], markersize=3
        )
    picture.label(ravine, f"ravine, k = {CONDITIONS[SHOWN]:g}: 25 updates", "x", "y")
    picture.label(arrivals, "updates to arrive", "condition k", "updates")
    picture.label(saddle, "saddle x² - y² + y⁴ / 4", "x", "y")
    picture.label(heights, f"from {NOISE:g} beside its line", "update", "f")
    picture.legend(heights, loc="upper right", fontsize=7)
    return figure


def _contours(axes: Any, x: np.ndarray, y: np.ndarray, f: Surface, levels: np.ndarray) -> None:
    z = np.asarray(f(jnp.stack([x, y], axis=-1)))
    axes.contour(x, y, z, levels=levels, colors=picture.INK, linewidths=0.5, alpha=0.5)


if __name__ == "__main__":
    sys.exit(study.main("ravines"))

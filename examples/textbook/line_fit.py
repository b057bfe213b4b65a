"""Fitting the line y = 2x + 1 with SGD and Adam.

Model w x + b, from w = b = 0; each of 100 updates sees 16 fresh x, uniform in [-1, 1], and has learning rate 0.1. The
textbook says that SGD ends at w = 1.95, b = 0.99 and Adam at w = 1.999, b = 1.000. For the mean of the squared errors
the gradient's mean is (2 (w - 2) / 3, 2 (b - 1)), so with SGD E w = 2 (1 - (1 - 2 a / 3)^t) and
E b = 1 - (1 - 2 a)^t; a loss with half the square has half of these rates.
"""

import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import gradtx
from examples.textbook import picture, study

TRUE = np.array([2.0, 1.0])  # w and b
RATE, BATCH, STEPS = 0.1, 16, 100
NOISES = (0.0, 0.1)  # standard deviation of the labels' noise
GRID = tuple(float(rate) for rate in np.geomspace(0.02, 1.0, 18))
CLAIMS = {"SGD": (1.95, 0.99, 0.005), "Adam": (1.999, 1.000, 0.0005)}  # w, b, and half a unit of the last digit
COLOURS = {"SGD": picture.BLUE, "SGD, half the square": picture.CYAN, "Adam": picture.RED, "Adam, tuned": picture.PINK}


class Found(NamedTuple):
    """Where each method went.

    Attributes:
      ways: w and b before each update and after the last, by method, `[noises, seeds, steps + 1, 2]`.
      tuned: the rates of the grid that suit Adam best, one for each noise.
    """

    ways: dict[str, np.ndarray]
    tuned: list[float]


def fit(tx: gradtx.GradientTransformation, factor: Any, noise: Any, seed: Any, steps: int = STEPS) -> jax.Array:
    """One run: w and b before each update and after the last, `[steps + 1, 2]`; the loss is factor times the mean."""

    def step(carry, t):
        p, state = carry
        x_key, noise_key = jax.random.split(jax.random.fold_in(jax.random.key(seed), t))
        x = jax.random.uniform(x_key, (BATCH,), minval=-1.0)
        y = TRUE[0] * x + TRUE[1] + noise * jax.random.normal(noise_key, (BATCH,))
        grads = jax.grad(lambda p: factor * jnp.mean((p[0] * x + p[1] - y) ** 2))(p)
        updates, state = tx.update(grads, state, p)
        return (gradtx.apply_updates(p, updates), state), p

    (last, _), ways = jax.lax.scan(step, (jnp.zeros(2), tx.init(jnp.zeros(2))), jnp.arange(steps))
    return jnp.concatenate([ways, last[None]])


def expected(factor: float, steps: int) -> np.ndarray:
    """The mean of SGD's w and b, a formula."""
    return TRUE * (1 - (1 - factor * RATE * np.array([2 / 3, 2])) ** steps)


def measure(quick: bool) -> Found:
    """All seeds of a method are one program, and a grid of Adam's rates is another, with seeds of its own."""
    seeds = 20 if quick else 100
    noises = jnp.array(NOISES)

    @jax.jit
    def fits(txs, factor, seeds):  # [transformations, noises, seeds, steps + 1, 2]
        over_seeds = jax.vmap(fit, (None, None, None, 0))
        over_noises = jax.vmap(over_seeds, (None, None, 0, None))
        return jax.vmap(over_noises, (0, None, None, None))(txs, factor, noises, seeds)

    grid = fits(jax.vmap(gradtx.adam)(jnp.array(GRID)), 1.0, 10_000 + jnp.arange(seeds))
    ends = np.median(np.linalg.norm(grid[..., -1, :] - TRUE, axis=-1), axis=-1)
    best = ends.argmin(axis=0)
    among = jnp.arange(seeds)
    of_adam = np.asarray(fits(jax.vmap(gradtx.adam)(jnp.array([RATE, *[GRID[i] for i in best]])), 1.0, among))
    ways = {
        "SGD": np.asarray(fits(gradtx.sgd(jnp.array([RATE])), 1.0, among))[0],
        "SGD, half the square": np.asarray(fits(gradtx.sgd(jnp.array([RATE])), 0.5, among))[0],
        "Adam": of_adam[0],
        "Adam, tuned": np.stack([of_adam[1 + i, i] for i in range(len(NOISES))]),
    }
    return Found(ways, [GRID[i] for i in best])


def report(found: Found) -> study.Report:
    """Where the methods end over the seeds, and whether the textbook's numbers are among these ends."""
    seeds, points = found.ways["SGD"].shape[1:3]
    rows = []
    for noise, of_noise in zip(NOISES, zip(*found.ways.values(), strict=True), strict=True):
        for name, ways in zip(found.ways, of_noise, strict=True):
            ends = ways[:, -1]
            cells = [f"{x.mean():.5f} ± {x.std(ddof=1):.1g} ({x.min():.4f} to {x.max():.4f})" for x in ends.T]
            rows.append([f"{noise:g}", name, *cells, f"{np.median(np.linalg.norm(ends - TRUE, axis=1)):.1e}"])
    columns = ["label noise", "method", "w: mean ± deviation (range)", "b", "median distance"]
    title = f"After {points - 1} updates, {seeds} seeds; tuned Adam: rates " + " and ".join(
        f"{rate:.3g} (noise {noise:g})" for rate, noise in zip(found.tuned, NOISES, strict=True)
    )
    formulas = [
        [name, *expected(factor, points - 1), *found.ways[name][0, :, -1].mean(axis=0)]
        for name, factor in [("SGD", 1.0), ("SGD, half the square", 0.5)]
    ]
    formulas = [[row[0], *[f"{x:.6f}" for x in row[1:]]] for row in formulas]
    tables = [
        study.Table(title, columns, rows),
        study.Table("SGD's mean without noise", ["", "E w, formula", "E b", "w, measured", "b"], formulas),
    ]
    return study.Report(tables, {"line_fit": _picture(found)}, findings(found))


def findings(found: Found) -> list[str]:
    """Sentences on the textbook's claims; intervals of shares are Clopper and Pearson's, 95 %."""
    told = []
    for name, (w, b, unit) in CLAIMS.items():
        for noise, ways in zip(NOISES, found.ways[name], strict=True):
            ends = ways[:, -1]
            near = (np.abs(ends - [w, b]) <= unit).all(axis=1)
            ranges = zip("wb", (w, b), ends.min(axis=0), ends.max(axis=0), strict=True)
            outside = [f"{letter} = {x}" for letter, x, low, high in ranges if not low <= x <= high]
            told.append(
                f"{name} with label noise {noise:g}: {share(near)} end where the textbook says, at w = {w:g} and "
                f"b = {b:g} to within {unit:g}. "
                + (
                    f"No seed goes as far as {' or '.join(outside)}."
                    if outside
                    else "Its w and b are in the seeds' range."
                )
            )
    for i, noise in enumerate(NOISES):
        sgd, adam, tuned = (np.abs(found.ways[name][i, :, -1, 0] - TRUE[0]) for name in ("SGD", "Adam", "Adam, tuned"))
        told.append(
            f"Label noise {noise:g}, the same batches: {share(adam < sgd)} have w closer to 2 with Adam than with "
            f"SGD, both at rate {RATE:g} (medians of |w - 2|: {np.median(adam):.1e} and {np.median(sgd):.1e}); with "
            f"the tuned Adam, {share(tuned < sgd)} ({np.median(tuned):.1e})."
        )
    w, b, _ = CLAIMS["SGD"]
    half, whole = (found.ways[name][0, :, -1] for name in ("SGD, half the square", "SGD"))
    off = np.abs([half.mean(axis=0) - [w, b], whole.mean(axis=0) - [w, b]])
    told.append(
        f"If the textbook's loss has half the square, SGD's w ends at {half[:, 0].mean():.3f} ± "
        f"{half[:, 0].std(ddof=1):.3f} (mean, deviation over the seeds) and b at {half[:, 1].mean():.4f}: w is "
        f"{off[0, 0]:.3f} from the claim instead of {off[1, 0]:.3f}, b {off[0, 1]:.3f} instead of {off[1, 1]:.3f}."
    )
    return told


def share(of: np.ndarray) -> str:
    """How many of some seeds, and the interval of the share."""
    interval = stats.binomtest(int(of.sum()), of.size).proportion_ci()
    return f"{of.sum()} of {of.size} seeds (share {interval.low:.2f} to {interval.high:.2f})"


def _picture(found: Found):
    figure, grid = picture.panels(2, 2, height=3.0)
    shake = np.random.default_rng(0).uniform(-0.3, 0.3, found.ways["SGD"].shape[1])
    for i, (noise, (strip, curve)) in enumerate(zip(NOISES, grid.T, strict=True)):
        for place, (name, ways) in enumerate(found.ways.items()):
            off = np.abs(ways[i, :, -1] - TRUE)
            strip.plot(off[:, 0], place + shake / 2 - 0.2, ".", color=COLOURS[name], markersize=3)
            strip.plot(off[:, 1], place + shake / 2 + 0.2, "x", color=COLOURS[name], markersize=3, markeredgewidth=0.7)
            distance = np.linalg.norm(ways[i] - TRUE, axis=-1)
            picture.spread(curve, np.arange(distance.shape[1]), distance, COLOURS[name], name)
        for name, (w, _, _) in CLAIMS.items():
            strip.axvline(abs(w - TRUE[0]), color=COLOURS[name], linestyle="--", linewidth=1)
        strip.set_xscale("log")
        strip.set_yticks(range(len(found.ways)), [name.replace(", ", ",\n") for name in found.ways])
        strip.invert_yaxis()
        curve.set_yscale("log")
        picture.label(strip, f"ends, label noise {noise:g}", "• |w - 2|,  x |b - 1|;  dashed: claimed |w - 2|")
        picture.label(curve, f"label noise {noise:g}: median and range", "update", "distance to (2, 1)")
    picture.legend(grid[1, 0], loc="lower left")
    return figure


if __name__ == "__main__":
    sys.exit(study.main("line_fit"))

"""Learning-rate schedules: their curves, and what each does to one network.

Step decay eta0 gamma^floor(t / s); cosine annealing eta_min + (eta_max - eta_min) / 2 (1 + cos(pi t / T)); warmup
eta_max min(t / T_w, 1); one cycle: from a base to the peak and down to far below the base. Every schedule has the same
number of steps; its peak is chosen out of a few by the validation loss.
"""

import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from examples.textbook import digits, picture, spread, study

STEPS = 300
OPTIMIZERS: dict[str, tuple[Callable[[Any], gradtx.GradientTransformation], list[float]]] = {  # and peaks to try
    "momentum": (lambda rate: gradtx.sgd(rate, momentum=0.9), [0.01, 0.03, 0.1]),
    "Adam": (gradtx.adam, [0.002, 0.006, 0.02]),
}


def schedules(steps: int) -> dict[str, gradtx.Schedule]:
    """Every schedule of gradtx, over some steps, with a peak of 1."""
    warmup, third = steps // 10, steps // 3
    wave = {"init_value": 0.0, "peak_value": 1.0, "warmup_steps": warmup // 2}
    return {
        "constant": gradtx.constant_schedule(1.0),
        "step": gradtx.step_decay(1.0, 0.1, third),
        "piecewise constant": gradtx.piecewise_constant_schedule(1.0, {steps // 2: 0.1, 3 * steps // 4: 0.1}),
        "exponential": gradtx.exponential_decay(1.0, steps, 0.01),
        "linear": gradtx.linear_schedule(1.0, 0.0, steps),
        "polynomial": gradtx.polynomial_schedule(1.0, 0.0, 2.0, steps),
        "cosine": gradtx.cosine_decay_schedule(1.0, steps, alpha=0.01),
        "piecewise cosine": gradtx.piecewise_interpolate_schedule("cosine", 1.0, {steps // 2: 0.2, steps: 0.0}),
        "inverse square root": gradtx.inverse_sqrt_decay(1.0, timescale=warmup),
        "inverse time": gradtx.inverse_time_decay(1.0, 1.0, warmup),
        "warmup": gradtx.warmup_constant_schedule(0.0, 1.0, warmup),
        "warmup, cosine": gradtx.warmup_cosine_decay_schedule(0.0, 1.0, warmup, steps),
        "warmup, exponential": gradtx.warmup_exponential_decay_schedule(0.0, 1.0, warmup, steps - warmup, 0.01),
        "warmup, constant, linear": gradtx.join_schedules(
            [gradtx.linear_schedule(0.0, 1.0, warmup), 1.0, gradtx.linear_schedule(1.0, 0.0, third)],
            [warmup, steps - third],
        ),
        "one cycle, linear": gradtx.linear_onecycle_schedule(steps, 1.0),
        "one cycle, cosine": gradtx.cosine_onecycle_schedule(steps, 1.0, final_div_factor=100.0),
        "cosine restarts": gradtx.cosine_restarts(1.0, -(-steps // 7)),  # 1 + 2 + 4: the third wave ends with the steps
        "SGDR": gradtx.sgdr_schedule([wave | {"decay_steps": third}, wave | {"decay_steps": steps - third}]),
    }


class Runs(NamedTuple):
    """The ends of all runs of an optimizer, `[schedules, peaks, seeds]`."""

    train_loss: np.ndarray
    validation_loss: np.ndarray
    validation_accuracy: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray


class Found(NamedTuple):
    """The curves, `[schedules, steps]` by name, and the runs with each optimizer."""

    rates: dict[str, np.ndarray]
    peaks: dict[str, list[float]]
    runs: dict[str, Runs]


def measure(quick: bool) -> Found:
    """Trains with every schedule, peak and seed: a schedule is a row of rates, so that they are all one program."""
    steps = 60 if quick else STEPS
    curves = jax.jit(lambda t: jnp.stack([schedule(t) for schedule in schedules(steps).values()]))(jnp.arange(steps))
    rates = dict(zip(schedules(steps), np.asarray(curves), strict=True))
    names = [*OPTIMIZERS][: 1 if quick else None]
    peaks = {name: OPTIMIZERS[name][1][1 if quick else 0 :] for name in names}
    seeds = jnp.arange(3 if quick else 8)
    return Found(rates, peaks, {name: train_all(OPTIMIZERS[name][0], curves, peaks[name], seeds) for name in names})


def train_all(optimizer: Callable, curves: jax.Array, peaks: list[float], seeds: jax.Array) -> Runs:
    """Trains the digits network once for each curve `[curves, steps]`, peak and seed.

    Args:
      optimizer: rate -> transformation.
      curves: rates with a peak of 1, `[curves, steps]`.
      peaks: what each curve is multiplied by.
      seeds: the same for every curve and peak.
    """
    data, steps = digits.load(), curves.shape[1]
    run = lambda rates, seed: digits.train(optimizer(lambda t: rates[t]), seed, data, steps=steps, points=1)
    over_all = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    rates = (curves[:, None] * jnp.asarray(peaks)[:, None]).reshape(-1, steps)
    ends = jax.jit(over_all)(rates, seeds)
    shape = (len(curves), len(peaks), len(seeds))
    return Runs(*(np.asarray(getattr(ends, field), np.float64).reshape(shape) for field in Runs._fields))


def chosen(runs: Runs) -> tuple[np.ndarray, Runs]:
    """Each schedule's peak with the lowest mean validation loss, `[schedules]`, and its runs, `[schedules, seeds]`."""
    loss = np.where(np.isfinite(runs.validation_loss), runs.validation_loss, np.inf).mean(axis=2)
    best = loss.argmin(axis=1)
    return best, Runs(*(field[np.arange(len(best)), best] for field in runs))


def from_constant(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each schedule's difference from the first, paired by seed, and half its interval: 95 % for all together."""
    return spread.interval(x[1:] - x[0], 1 - 0.05 / (len(x) - 1))  # Bonferroni


def report(found: Found) -> study.Report:
    """A table for each optimizer, the curves, and the differences from a constant rate."""
    figure, grid = picture.panels(6, 3, width=1.7, height=1.35, sharex=True, sharey=True)
    for (name, rates), axes in zip(found.rates.items(), grid.flat, strict=True):
        axes.plot(rates, color=picture.BLUE, linewidth=1.6)
        axes.set_title(name, color=picture.INK, fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("step", color=picture.INK, fontsize=8)

    tables, findings = [], []
    for name, runs in found.runs.items():
        best, ends = chosen(runs)
        tables.append(_table(name, [*found.rates], np.array(found.peaks[name])[best], ends))
        findings.append(_finding(name, np.array([*found.rates]), ends))
        edge = np.isin(best, (0, len(found.peaks[name]) - 1)).sum()
        findings.append(
            f"{name}: {edge} of {len(best)} schedules chose a peak at an edge of the grid {found.peaks[name]}."
        )
    return study.Report(tables, {"schedules": figure, "schedules_difference": _differences(found)}, findings)


def _table(name: str, schedules: list[str], peaks: np.ndarray, ends: Runs) -> study.Table:
    of = lambda x, digits: [
        f"{mean:.{digits}f} ± {half:.{digits}f}" for mean, half in zip(*spread.interval(x), strict=True)
    ]
    difference, half = from_constant(ends.test_loss)
    beyond = ["", *(spread.difference(d, h, 4) for d, h in zip(difference, half, strict=True))]
    rows = zip(
        schedules,
        peaks,
        of(ends.train_loss, 4),
        of(ends.validation_loss, 3),
        of(100 * ends.validation_accuracy, 2),
        of(ends.test_loss, 3),
        of(100 * ends.test_accuracy, 2),
        beyond,
        strict=True,
    )
    columns = [
        "schedule",
        "peak",
        "train loss",
        "validation loss",
        "validation, %",
        "test loss",
        "test, %",
        "difference",
    ]
    title = (
        f"{name}: {ends.test_loss.shape[1]} seeds, 95 % t-intervals; difference in test loss from constant, paired, "
        "Bonferroni, * where it exceeds the noise"
    )
    return study.Table(title, columns, [list(row) for row in rows])


def _finding(name: str, schedules: np.ndarray, ends: Runs) -> str:
    told = []
    for what, x in (
        ("train loss", ends.train_loss),
        ("test loss", ends.test_loss),
        ("test error", -ends.test_accuracy),
    ):
        difference, half = from_constant(x)
        better, worse = schedules[1:][difference < -half], schedules[1:][difference > half]
        told.append(f"{what}: {len(better)} lower ({', '.join(better) or 'none'}), {len(worse)} higher")
    order = ends.test_loss.mean(axis=1).argsort()
    return (
        f"{name}, against a constant rate, beyond the noise of {ends.test_loss.shape[1]} paired seeds: "
        f"{'; '.join(told)}. "
        f"The lowest mean test loss has {schedules[order[0]]}, the highest {schedules[order[-1]]}."
    )


def _differences(found: Found) -> Any:
    figure, (row,) = picture.panels(len(found.runs), width=4.2, height=3.8, sharey=True)
    names = [*found.rates][1:]
    for axes, (name, runs) in zip(row, found.runs.items(), strict=True):
        picture.differences(axes, names, *from_constant(chosen(runs)[1].test_loss))
        picture.label(axes, name, "test loss, difference from constant")
    row[0].invert_yaxis()
    return figure


if __name__ == "__main__":
    sys.exit(study.main("schedules"))

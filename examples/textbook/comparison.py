"""Optimizers compared: the textbook's opinions, measured.

Ten optimizers train the digits network at 13 constant learning rates over four decades, each optimizer over its own.
The rate is chosen by the median validation loss over the seeds; what is said of generalization is said of the test
pictures. One seed is one start and one order of batches for all, so differences are paired by seed. Hyperparameters
other than the rate are not searched.
"""

import functools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from examples.textbook import digits, picture, spread, study
from gradtx import tuning

STEPS = 600
EVERY = 10  # steps from one look at the training loss to the next
SEEDS = 5
DECADES = 4
REACHED = 0.1  # a training loss below it counts as converged
WITHIN = 1.5  # times the best loss: a rate is still good
DEFAULT = 1e-3  # Adam's usual rate
TOP = 5.0  # of the picture; a loss above it, or none, is drawn there
BEFORE_ADAM = ("SGD", "momentum", "Nesterov", "AdaGrad", "RMSprop")

OPTIMIZERS: dict[str, tuple[Callable[[Any], gradtx.GradientTransformation], float]] = {  # of a rate; the lowest rate
    "SGD": (gradtx.sgd, 1e-3),
    "momentum": (lambda rate: gradtx.sgd(rate, momentum=0.9), 1e-4),
    "Nesterov": (lambda rate: gradtx.sgd(rate, momentum=0.9, nesterov=True), 1e-4),
    "AdaGrad": (gradtx.adagrad, 1e-3),
    "RMSprop": (gradtx.rmsprop, 1e-5),
    "Adam": (gradtx.adam, 1e-4),
    "AdamW": (lambda rate: gradtx.adamw(rate, weight_decay=0.1), 1e-4),
    "Lion": (lambda rate: gradtx.lion(rate, weight_decay=1.0), 1e-5),  # a tenth of AdamW's rate, ten times its decay
    "LAMB": (lambda rate: gradtx.lamb(rate, weight_decay=0.1), 1e-4),
    # Relative to the parameters' scale; the usual bound, 128 rows and columns, would leave this network unfactored.
    "Adafactor": (lambda rate: gradtx.adafactor(rate, min_dim_size_to_factor=8), 1e-4),
}


class Runs(NamedTuple):
    """The runs of one optimizer: `[rates, seeds]` at the end, the training loss `[rates, seeds, looks]`."""

    train_loss: Any
    validation_loss: Any
    test_loss: Any
    test_accuracy: Any


class Found(NamedTuple):
    """By optimizer: the rates, the runs, the bytes of state per parameter. `step`: of each look, from 0."""

    step: np.ndarray
    rates: dict[str, np.ndarray]
    runs: dict[str, Runs]
    state_bytes: dict[str, float]


def measure(quick: bool) -> Found:
    """One compiled program for each optimizer: all its rates and seeds at once."""
    steps, seeds = (40, 2) if quick else (STEPS, SEEDS)
    names = ["SGD", "Adam"] if quick else [*OPTIMIZERS]
    rates = {name: OPTIMIZERS[name][1] * np.logspace(0, DECADES, 3 * DECADES + 1) for name in names}
    if quick:
        rates = {name: some[:10:3] for name, some in rates.items()}
    data, run, runs = digits.load(), functools.partial(train, looks=steps // EVERY), {}
    for name, some in rates.items():
        members = tuning.grid((OPTIMIZERS[name][0](tuning.choice(some)), tuning.choice(range(seeds))))
        found = tuning.run_population(run, members, data)
        runs[name] = Runs(*(np.asarray(x, np.float64).reshape(len(some), seeds, *x.shape[1:]) for x in found))
    step = np.arange(0, steps + 1, EVERY)
    return Found(step, rates, runs, {name: state_bytes(OPTIMIZERS[name][0](DEFAULT)) for name in names})


def train(member: tuple[gradtx.GradientTransformation, jax.Array], data: digits.Data, looks: int) -> Runs:
    """One run: the training loss at the start and after every `EVERY` steps, the rest at the end."""
    tx, seed = member

    def stretch(now, _):
        return digits.advance(tx, now, data, EVERY), digits.evaluate(now, data.train)[0]

    end, before = jax.lax.scan(stretch, digits.begin(tx, seed), length=looks)
    (last, _), (validation_loss, _), (test_loss, test_accuracy) = (digits.evaluate(end, part) for part in data)
    return Runs(jnp.append(before, last), validation_loss, test_loss, test_accuracy)


def state_bytes(tx: gradtx.GradientTransformation) -> float:
    """What an optimizer remembers of the digits network, in bytes per parameter."""
    size = lambda tree, of: sum(of(x) for x in jax.tree.leaves(tree))
    training = jax.eval_shape(lambda: digits.begin(tx, 0))
    return size(training.state, lambda x: x.size * x.dtype.itemsize) / size(training.params, lambda x: x.size)


def finite(x: np.ndarray) -> np.ndarray:
    """Losses, infinite where a run diverged, so that it is the worst of all."""
    return np.where(np.isfinite(x), x, np.inf)


def best_rate(runs: Runs) -> int:
    """The place of the rate with the lowest median validation loss."""
    return int(np.argmin(np.median(finite(runs.validation_loss), axis=1)))


def at_best(found: Found) -> dict[str, Runs]:
    """Each optimizer's runs at its best rate: `[seeds]`."""
    return {name: Runs(*(x[best_rate(runs)] for x in runs)) for name, runs in found.runs.items()}


def steps_to(found: Found, name: str) -> np.ndarray:
    """The steps to a training loss of `REACHED`, `[rates, seeds]`, infinite where a run does not get there."""
    looks = found.runs[name].train_loss
    until = [steps_until(found.step, x) for x in looks.reshape(-1, looks.shape[-1])]
    return np.reshape(until, looks.shape[:-1])


def steps_until(step: np.ndarray, loss: np.ndarray, below: float = REACHED) -> float:
    """When a loss `[looks]` first falls below a bound, with its logarithm taken as straight between two looks.

    Infinite if it never does.
    """
    under = np.flatnonzero(loss < below)
    if not len(under):
        return np.inf
    i = under[0]
    if i == 0:
        return float(step[0])
    high, low = np.log(finite(loss[i - 1])), np.log(loss[i])
    share = 1.0 if np.isinf(high) else (high - np.log(below)) / (high - low)
    return float(step[i - 1] + share * (step[i] - step[i - 1]))


def good_decades(rates: np.ndarray, loss: np.ndarray, within: float = WITHIN) -> tuple[float, bool]:
    """How many decades of rates around the best have a loss within a factor of the best one.

    Between two rates, log loss is taken as straight over log rate; next to a diverged rate the region ends.

    Returns: the width, and whether the region leaves the rates tried, so that the width is a lower bound.
    """
    x, excess = np.log10(rates), np.log(loss / (within * loss.min()))  # within: not positive

    def reach(by: int) -> tuple[float, bool]:
        i = int(np.argmin(loss))
        while 0 <= i + by < len(x):
            if excess[i + by] > 0:
                return x[i] + (x[i + by] - x[i]) * -excess[i] / (excess[i + by] - excess[i]), False
            i += by
        return x[i], True

    (low, low_open), (high, high_open) = reach(-1), reach(1)
    return float(high - low), low_open or high_open


class Result(NamedTuple):
    """What the opinions are about, `[seeds]`, at the rate that validation chose."""

    test_loss: np.ndarray
    percent: np.ndarray  # of the test pictures, right
    steps: np.ndarray  # to `REACHED`; a run that does not get there counts all it made, a lower bound
    fewest_steps: np.ndarray  # the same at the rate with the lowest median, chosen for speed alone
    decades: np.ndarray  # of good rates, from each seed's own losses


def results(found: Found) -> dict[str, Result]:
    """Each optimizer's numbers by seed."""
    told = {}
    for name, best in at_best(found).items():
        steps, losses = np.minimum(steps_to(found, name), found.step[-1]), finite(found.runs[name].validation_loss)
        told[name] = Result(
            best.test_loss,
            100 * best.test_accuracy,
            steps[best_rate(found.runs[name])],
            steps[np.argmin(np.median(steps, axis=1))],
            np.array([good_decades(found.rates[name], loss)[0] for loss in losses.T]),
        )
    return told


def judged(what: str, by_seed: np.ndarray) -> str:
    """Says whether a difference that a claim wants positive is: "steps, +12 ± 3: holds"."""
    mean, half = spread.interval(by_seed)
    verdict = "holds" if mean > half else "does not hold" if mean < -half else "within the noise"
    return f"{what}, {mean:+.3g} ± {half:.2g}: {verdict}"


def claims(found: Found) -> list[str]:
    """The textbook's opinions, each with paired differences that are positive where it is right."""
    by_name = results(found)
    sgd, adam = by_name["SGD"], by_name["Adam"]
    rest = Result(*np.mean([result for name, result in by_name.items() if name != "SGD"], axis=0))
    order = sorted(by_name, key=lambda name: np.median(by_name[name].fewest_steps))
    told = [
        "SGD generalizes well, beside the mean of the others: "
        f"{judged('their test loss less its', rest.test_loss - sgd.test_loss)}; "
        f"{judged('its test accuracy less theirs (%)', sgd.percent - rest.percent)}. It converges slowly: "
        f"{judged('its steps less theirs at the best rates', sgd.steps - rest.steps)}; "
        f"{judged('at the fastest rates', sgd.fewest_steps - rest.fewest_steps)}. It is sensitive to the rate: "
        f"{judged('their decades of good rates less its', rest.decades - sgd.decades)}.",
        f"Adam converges fast: {judged('the steps of SGD less its at the best rates', sgd.steps - adam.steps)}; "
        f"{judged('at the fastest rates', sgd.fewest_steps - adam.fewest_steps)}, where it is, by medians, number "
        f"{order.index('Adam') + 1} of {len(order)}, after {', '.join(order[: order.index('Adam')]) or 'none'}. "
        "It can generalize worse than SGD: "
        f"{judged('its test loss less that of SGD', adam.test_loss - sgd.test_loss)}; "
        f"{judged('the test accuracy of SGD less its (%)', sgd.percent - adam.percent)}.",
    ]
    better = lambda new: (
        f"{judged('test loss of Adam less its', adam.test_loss - new.test_loss)}; "
        f"{judged('its test accuracy less that of Adam (%)', new.percent - adam.percent)}."
    )
    if "AdamW" in by_name:
        told.append(f"AdamW generalizes better than Adam: {better(by_name['AdamW'])}")
    if "Lion" in by_name:
        lion, other = found.state_bytes["Lion"], found.state_bytes["Adam"]
        told.append(
            f"Lion is memory efficient: {lion:.2f} bytes of state per parameter, Adam {other:.2f}: "
            f"{'holds' if lion < other else 'does not hold'}. It performs well, beside Adam: {better(by_name['Lion'])}"
        )
    return [*told, default(found)]


def default(found: Found, name: str = "Adam") -> str:
    """How good an optimizer is at its usual rate, untuned, beside all others at their best."""
    i = int(np.argmin(np.abs(np.log(found.rates[name] / DEFAULT))))
    rate, runs, best = found.rates[name][i], found.runs[name], at_best(found)
    median = lambda x: np.median(finite(x))
    own = median(runs.validation_loss[i]) / median(best[name].validation_loss)
    ahead = [spread.interval(x.test_loss - runs.test_loss[i]) for other, x in best.items() if other != name]
    return (
        f"Start with {name}, a good default: at {rate:.3g} its median validation loss is {own:.2f} times that of its "
        f"best rate, {found.rates[name][best_rate(runs)]:.3g}; its test loss is lower, beyond the noise, than that of "
        f"{sum(mean > half for mean, half in ahead)} of {len(ahead)} others, each at its best rate, higher than that "
        f"of {sum(mean < -half for mean, half in ahead)}."
    )


def report(found: Found) -> study.Report:
    """The rates' picture, a row for each optimizer, how each prints, and the opinions."""
    best = at_best(found)
    rows, printed, edges = [], [], []
    for name, runs in best.items():
        rates, i, until = found.rates[name], best_rate(found.runs[name]), np.median(steps_to(found, name), axis=1)
        width, is_open = good_decades(rates, np.median(finite(found.runs[name].validation_loss), axis=1))
        row = [
            name,
            f"{rates[i]:.3g}",
            spread.median(runs.train_loss[:, -1], ".2g"),
            spread.median(runs.validation_loss, ".2g"),
        ]
        row += [spread.median(runs.test_loss, ".2g"), spread.median(100 * runs.test_accuracy, ".1f")]
        for j in (i, until.argmin()):
            row.append(f"{until[j]:.0f} ({rates[j]:.3g})" if np.isfinite(until[j]) else "not reached")
        rows.append([*row, f"{'≥ ' * is_open}{width:.1f}", f"{found.state_bytes[name]:.2f}"])
        tx = OPTIMIZERS[name][0](float(f"{rates[i]:.3g}"))
        printed.append([name, f"{rates[0]:g} to {rates[-1]:g}", f"`{tx}`"])
        edges += [name] * (i in (0, len(rates) - 1))
    seeds, last = len(best["SGD"].test_loss), found.step[-1]
    columns = ["optimizer", "best rate", "train loss", "validation loss", "test loss", "test, %"]
    columns += ["steps", "fewest steps", "good decades", "state"]
    title = (
        f"At the best rate, {last} steps, {seeds} seeds: median (lowest to highest). Steps: to a train loss of "
        f"{REACHED:g}, at the best rate and at the fastest. Good decades: of rates whose median validation "
        f"loss is at most {WITHIN:g} times the best. State: bytes per parameter"
    )
    tables = [
        study.Table(title, columns, rows),
        study.Table("Rates tried, and each optimizer as it prints", ["optimizer", "rates", "best"], printed),
    ]
    notes = [
        f"± is half a 95 % t-interval of the mean of differences paired over {seeds} seeds, each by itself; a claim "
        f"holds where it wants the difference positive and all of the interval is. Of the steps to a training loss of "
        f"{REACHED:g}, a run that does not get there counts {last}.",
        f"The best rate lies at an edge of the rates tried for: {', '.join(edges) or 'none'}.",
    ]
    return study.Report(tables, {"comparison": _drawn(found, best)}, claims(found) + notes)


def _drawn(found: Found, best: dict[str, Runs]) -> Any:
    figure, grid = picture.panels(2, 2, width=4.5, height=3, sharey="row")
    for name, runs in found.runs.items():
        upper, lower = grid[:, 0 if name in BEFORE_ADAM else 1]
        colour, line = picture.METHODS[name], "--" if name == "Nesterov" else "-"  # it would hide momentum
        losses = finite(runs.validation_loss)
        picture.spread(upper, found.rates[name], np.minimum(losses, TOP).T, colour, name, linestyle=line)
        lost = found.rates[name][np.isinf(losses).any(axis=1)]
        upper.plot(lost, np.full(len(lost), TOP), "x", color=colour, markersize=5)
        picture.spread(lower, found.step, best[name].train_loss, colour, name, linestyle=line)
    for (upper, lower), title in zip(grid.T, ("before Adam", "Adam and after"), strict=True):
        upper.set(xscale="log", yscale="log", ylim=(None, 1.1 * TOP))
        upper.axhline(np.log(digits.CLASSES), color=picture.INK, linewidth=1, linestyle=":")
        lower.set_yscale("log")
        picture.label(upper, title, "learning rate")
        picture.label(lower, x="step, at the best rate")
        picture.legend(lower, loc="upper right", ncols=2)
    guess = dict(color=picture.INK, fontsize=8, va="bottom", transform=grid[0, 0].get_yaxis_transform())
    grid[0, 0].text(0.02, 1.05 * np.log(digits.CLASSES), "a constant guess", **guess)
    grid[0, 0].set_ylabel("validation loss at the end", color=picture.INK, fontsize=9)
    grid[1, 0].set_ylabel("training loss", color=picture.INK, fontsize=9)
    return figure


if __name__ == "__main__":
    sys.exit(study.main("comparison"))

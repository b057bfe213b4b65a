"""Regularizers, each alone, on 250 training pictures.

Penalties on weights (L2, decoupled decay, L1), noise on gradients, label smoothing, augmentation (rotation, shift,
brightness and contrast, flip, mixup), dropout, normalization and early stopping: the generalization gap, which is test
loss - training loss, and the test accuracy, beside the unregularized run of the same seed. A regularizer's strength is
chosen by the validation loss.
"""

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import gradtx
from examples.textbook import digits, picture, spread, study
from examples.textbook.regularized import (
    LAYERS,
    RATE,
    Augmentation,
    Penalty,
    augmented,
    layered,
    penalized,
    soft_cross_entropy,
)

PICTURES = 250
STRENGTH = 0.01  # of the decays that are compared along a trajectory
SETTINGS: dict[str, Sequence[Any]] = {
    "none": [Penalty()],
    "L2 in the loss": [Penalty(l2=x) for x in (1e-3, 1e-2, 3e-2)],
    "decoupled decay": [Penalty(decay=x) for x in (1e-2, 1e-1, 3e-1)],
    "L1, subgradient": [Penalty(l1=x) for x in (3e-4, 1e-3, 3e-3)],
    "L1, proximal": [Penalty(soft=x) for x in (1e-4, 5e-4, 1e-3)],
    "gradient noise": [Penalty(noise=x) for x in (1e-4, 1e-3, 1e-2)],
    "label smoothing": [Penalty(smoothing=x) for x in (0.05, 0.1, 0.2)],
    "rotation": [Augmentation(rotation=x) for x in (0.15, 0.3)],
    "shift": [Augmentation(shift=1.0)],
    "brightness, contrast": [Augmentation(jitter=x) for x in (0.2, 0.5)],
    "flip": [Augmentation(flip=1.0)],
    "mixup": [Augmentation(mixup=x) for x in (0.2, 1.0)],
    "dropout": ["dropout 0.2", "dropout 0.5"],
    **{name: [name] for name in LAYERS if "norm" in name},
}
QUICK = ("none", "L2 in the loss", "L1, proximal", "label smoothing")  # one program


class Found(NamedTuple):
    """What was measured.

    Attributes:
      curves: of every regularizer with every strength, `[seeds, points]`.
      decays: largest difference of weights along 50 steps of L2 in the loss and of decoupled decay, by optimizer.
      zeros: share of a softmax regression's weights that are exactly 0 after 200 steps, by kind of L1.
    """

    curves: dict[str, list[digits.Curves]]
    decays: dict[str, float]
    zeros: dict[str, float]


def measure(quick: bool) -> Found:
    """Trains all: one program for the penalties, one for the augmentations, one for each network."""
    data = digits.load(train=PICTURES)
    seeds = jnp.arange(3 if quick else 5)
    lengths = {"steps": 60, "points": 6} if quick else {"steps": 400, "points": 20}
    settings = {name: SETTINGS[name] for name in (QUICK if quick else SETTINGS)}
    curves: dict[str, list[digits.Curves]] = {name: [] for name in settings}
    for kind, run in ((Penalty, penalized), (Augmentation, augmented)):
        members = [(name, setting) for name, some in settings.items() for setting in some if isinstance(setting, kind)]
        if members:
            stacked = jax.tree.map(lambda *xs: jnp.array(xs), *(setting for _, setting in members))
            over = jax.vmap(jax.vmap(lambda x, seed, run=run: run(x, seed, data, **lengths), (None, 0)), (0, None))
            ends = jax.tree.map(np.asarray, jax.jit(over)(stacked, seeds))
            for i, (name, _) in enumerate(members):
                curves[name].append(digits.Curves(*(x[i] for x in ends)))
    for name, some in settings.items():
        for layer in (setting for setting in some if isinstance(setting, str)):
            run = lambda seed, layer=layer: layered(LAYERS[layer], seed, data, **lengths)
            curves[name].append(jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(seeds)))
    return Found(curves, *regressions(data.train))


def regressions(part: digits.Part) -> tuple[dict[str, float], dict[str, float]]:
    """Softmax regression, all pictures at each step: how L2 differs from decay, and which L1 makes zeros."""
    labels = jax.nn.one_hot(part.y, digits.CLASSES)

    def way(tx, l2=0.0, steps=50):
        def step(carry, _):
            w, state = carry
            loss = lambda w: soft_cross_entropy(part.x @ w, labels) + l2 / 2 * jnp.sum(w**2)
            updates, state = tx.update(jax.grad(loss)(w), state, w)
            w = gradtx.apply_updates(w, updates)
            return (w, state), w

        start = 0.1 * jax.random.normal(jax.random.key(0), (64, digits.CLASSES))
        return jax.lax.scan(step, (start, tx.init(start)), length=steps)[1]

    @jax.jit
    def all_ways():
        decay, rate = gradtx.add_decayed_weights(STRENGTH), gradtx.scale_by_learning_rate(RATE)
        pairs = {
            "SGD": (way(gradtx.sgd(RATE), STRENGTH), way(gradtx.chain(decay, rate))),
            "Adam": (way(gradtx.adam(RATE), STRENGTH), way(gradtx.adamw(RATE, weight_decay=STRENGTH))),
        }
        sparse = {
            "subgradient": gradtx.chain(gradtx.add_l1_subgradient(STRENGTH), rate),
            "proximal": gradtx.chain(rate, gradtx.proximal_l1(RATE * STRENGTH)),
        }
        zeros = {name: jnp.mean(way(tx, steps=200)[-1] == 0) for name, tx in sparse.items()}
        return {name: jnp.max(abs(a - b)) for name, (a, b) in pairs.items()}, zeros

    decays, zeros = all_ways()
    return {name: float(x) for name, x in decays.items()}, {name: float(x) for name, x in zeros.items()}


class Ends(NamedTuple):
    """What a run ends with, one number per seed."""

    train_loss: np.ndarray
    validation_loss: np.ndarray
    test_loss: np.ndarray
    test_accuracy: np.ndarray

    @property
    def gap(self) -> np.ndarray:
        """Test loss - training loss."""
        return self.test_loss - self.train_loss


def ends(curves: digits.Curves, points: Any = -1) -> Ends:
    """The numbers of each seed at a point, the last if no other is given."""
    rows = np.arange(len(curves.train_loss))
    return Ends(*(np.asarray(getattr(curves, field), np.float64)[rows, points] for field in Ends._fields))


def chosen(found: Found) -> dict[str, tuple[str, Ends]]:
    """Each regularizer's strength with the lowest mean validation loss, and its runs; early stopping is one of them."""
    best = {}
    for name, all_curves in found.curves.items():
        each = [ends(curves) for curves in all_curves]
        i = int(np.argmin([end.validation_loss.mean() for end in each]))
        best[name] = _strength(SETTINGS[name][i]), each[i]
    (plain,) = found.curves["none"]
    stop = np.argmin(plain.validation_loss, axis=1)
    best["early stopping"] = f"{np.median(plain.step[np.arange(len(stop)), stop]):.0f} steps", ends(plain, stop)
    return best


def _strength(setting: Any) -> str:
    if isinstance(setting, str):
        return setting.removeprefix("dropout ") if "dropout" in setting else ""
    return next((f"{x:g}" for x in setting if x), "")


def report(found: Found) -> study.Report:
    """The table, the differences from no regularizer, and the two comparisons of regressions."""
    best = chosen(found)
    plain = best["none"][1]
    confidence = 1 - 0.05 / (len(best) - 1)  # Bonferroni
    rows, differences = [], {}
    for name, (strength, end) in best.items():
        means = [
            f"{mean:.{n}f} ± {half:.{n}f}"
            for mean, half, n in (
                (*spread.interval(end.train_loss), 3),
                (*spread.interval(end.test_loss), 3),
                (*spread.interval(100 * end.test_accuracy), 1),
            )
        ]
        pair = [
            spread.interval(end.gap - plain.gap, confidence),
            spread.interval(end.test_loss - plain.test_loss, confidence),
            spread.interval(100 * (end.test_accuracy - plain.test_accuracy), confidence),
        ]
        if name != "none":
            differences[name] = pair
        marked = [spread.difference(mean, half, n) for (mean, half), n in zip(pair, (3, 3, 1), strict=True)]
        rows.append([name, strength, *means, end.gap.mean(), *(marked if name != "none" else ["", "", ""])])
    columns = [
        "regularizer",
        "strength",
        "train loss",
        "test loss",
        "test, %",
        "gap",
        "gap, difference",
        "test loss, difference",
        "test %, difference",
    ]
    title = (
        f"{PICTURES} training pictures, {len(plain.gap)} seeds, 95 % t-intervals; differences from none are paired by "
        "seed, 95 % for all rows together (Bonferroni), * where they exceed the noise"
    )
    along = [
        [f"{name}, 50 steps", "L2 in the loss against decoupled decay, largest difference of weights", x]
        for name, x in found.decays.items()
    ]
    along += [
        [f"SGD, 200 steps, {name} L1", "share of weights that are exactly 0", x] for name, x in found.zeros.items()
    ]
    tables = [study.Table(title, columns, rows), study.Table("Softmax regression", ["run", "measured", "value"], along)]
    return study.Report(tables, {"regularizers": _forest(differences)}, _findings(found, differences))


def _forest(differences: dict[str, list[tuple[float, float]]]) -> Any:
    figure, (row,) = picture.panels(3, width=3.2, height=4.2, sharey=True)
    titles = ["gap", "test loss", "test accuracy, points"]
    for i, (axes, title) in enumerate(zip(row, titles, strict=True)):
        mean, half = np.array([pair[i] for pair in differences.values()]).T
        picture.differences(axes, [*differences], mean, half, more_is_better=i == 2)
        picture.label(axes, title, "difference from none")
    row[0].invert_yaxis()
    return figure


def _findings(found: Found, differences: dict[str, list[tuple[float, float]]]) -> list[str]:
    def beyond(i: int, sign: int) -> str:
        names = [name for name, pair in differences.items() if sign * pair[i][0] > pair[i][1]]
        return f"{len(names)} of {len(differences)} ({', '.join(names) or 'none'})"

    told = [
        f"Beyond the noise, the gap is smaller with {beyond(0, -1)}, the test loss lower with {beyond(1, -1)}, "
        f"the test accuracy higher with {beyond(2, 1)}.",
        f"Beyond the noise, the test loss is higher with {beyond(1, 1)}, the test accuracy lower with {beyond(2, -1)}.",
    ]
    if "flip" in differences:
        mean, half = differences["flip"][2]
        told.append(
            f"Flips make digits that nobody writes; they change the test accuracy by {mean:+.1f} ± {half:.1f} points."
        )
    sgd, adam = found.decays["SGD"], found.decays["Adam"]
    zeros = found.zeros
    told.append(
        f"L2 in the loss and decoupled decay differ by {sgd:.0e} along SGD's way and by {adam:.2g} along Adam's. "
        f"Exactly 0 are {zeros['proximal']:.0%} of the weights with the proximal step, {zeros['subgradient']:.0%} with "
        "the subgradient."
    )
    return told


if __name__ == "__main__":
    sys.exit(study.main("regularizers"))

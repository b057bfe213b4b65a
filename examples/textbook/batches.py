"""Batches: all data, single instances, or a few at a time.

The gradient of a batch of B instances is the mean of theirs. Drawn with replacement it has variance s^2 / B, where s^2
is the variance over the N instances; without replacement s^2 / B times (N - B) / (N - 1). One update with all data
costs as many gradients as N updates with one instance. The sum over a batch is B times its mean, so the sum with the
rate a / B is the mean with the rate a.
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree
from scipy import stats

import gradtx
from examples.textbook import digits, picture, spread, study

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
POINTS, BATCH = 40, 20
TUNING = 3  # seeds that a rate is chosen by; others tell the result
WAYS = {"all data": picture.BLUE, "single instances": picture.RED, f"batches of {BATCH}": picture.GREEN}
ORDERS = {"shuffled every epoch": picture.GREEN, "shuffled once": picture.CYAN, "ordered by class": picture.ORANGE}


class Run(NamedTuple):
    """What runs measured, `[members, points]`, and the weights they ended with, `[members, weights]`."""

    loss: np.ndarray  # of the training data
    accuracy: np.ndarray  # of the test data
    weights: np.ndarray


class Tuned(NamedTuple):
    """Runs of the rate that ends with the lowest training loss."""

    rate: float
    run: Run


class Found(NamedTuple):
    """What was measured.

    Attributes:
      variance: of a batch's gradient over s^2, with and without replacement, `[2, sizes, draws]`.
      instances: how many the batches were drawn from, N.
      pictures: how many were trained on.
      epochs: how often, for batches and single instances.
      ways: one update per all data, instance, or batch.
      orders: batches of the data in some order.
      same_rate: the order by class with the rate of the shuffled data.
      sums: the sum over a batch instead of the mean: with the rate a / B, and with the rate a.
    """

    variance: np.ndarray
    instances: int
    pictures: int
    epochs: int
    ways: dict[str, Tuned]
    orders: dict[str, Tuned]
    same_rate: Run
    sums: tuple[Run, Run]


GRAPH = digits.structure()


@jax.jit
def first_weights(seeds: Array) -> nnx.State:
    """The network's parameters before the first update, stacked over the seeds."""
    of = lambda seed: nnx.state(digits.Perceptron(nnx.Rngs(jax.random.key(seed))), nnx.Param)
    return jax.lax.map(of, seeds)  # vmap compiles three times as long


def variances(params: nnx.State, data: digits.Part, draws: int) -> np.ndarray:
    """Squared distances of batch gradients from the full gradient, over their mean for one instance."""
    loss = lambda params, x, y: digits.cross_entropy(nnx.merge(GRAPH, params), x[None], y[None])
    flat = lambda x, y: ravel_pytree(jax.grad(loss)(params, x, y))[0]
    gradients = np.asarray(jax.jit(jax.vmap(flat))(*data), float)
    gradients -= gradients.mean(axis=0)
    gram, n, rng = gradients @ gradients.T, len(gradients), np.random.default_rng(0)

    def of(counts, size):  # counts: how often a batch has each instance
        return np.sum(counts @ gram * counts, axis=1) / size**2 / (np.trace(gram) / n)

    sizes = [size for size in SIZES if size <= n]
    again = [of(rng.multinomial(size, np.full(n, 1 / n), draws), size) for size in sizes]
    once = [of(rng.multivariate_hypergeometric(np.ones(n, int), size, draws), size) for size in sizes]
    return np.array([again, once])


def descend(rate: Array, scale: Array, params: nnx.State, plan: Array, data: digits.Data) -> tuple[Array, Array, Array]:
    """One run of SGD on `scale` times the sum of a batch's losses.

    Args:
      rate: the learning rate.
      scale: 1 / B for the batch's mean, 1 for its sum.
      params: the first weights.
      plan: rows of the training data that each update sees, `[points, updates, B]`.
      data: to train and to measure on.

    Returns: the training loss and the test accuracy at each point, and the last weights.
    """
    tx = gradtx.sgd(rate)

    def step(carry, rows):
        params, state = carry
        part = digits.Part(data.train.x[rows], data.train.y[rows])
        total = lambda params: scale * len(rows) * digits.cross_entropy(nnx.merge(GRAPH, params), *part)
        updates, state = tx.update(jax.grad(total)(params), state, params)
        return (gradtx.apply_updates(params, updates), state), None

    def stretch(carry, rows):
        carry, _ = jax.lax.scan(step, carry, rows)
        model = nnx.merge(GRAPH, carry[0])
        right = jnp.argmax(model(data.test.x), axis=-1) == data.test.y
        return carry, (digits.cross_entropy(model, *data.train), jnp.mean(right))

    (params, _), (loss, accuracy) = jax.lax.scan(stretch, (params, tx.init(params)), plan)
    return loss, accuracy, ravel_pytree(params)[0]


PROGRAM = jax.jit(jax.vmap(descend, (0, 0, 0, 0, None)))  # compiled once for each shape of plan


def plans(seeds: np.ndarray, labels: np.ndarray, batch: int, epochs: int, order: str) -> np.ndarray:
    """Which rows each update sees, `[seeds, points, updates, batch]`; every epoch sees every row once."""
    n = len(labels)

    def rows(seed):
        rng = np.random.default_rng(seed)
        if order == "ordered by class":
            return np.tile(np.argsort(labels, kind="stable"), epochs)
        if order == "shuffled once":
            return np.tile(rng.permutation(n), epochs)
        return np.concatenate([rng.permutation(n) for _ in range(epochs)])

    return np.stack([rows(seed) for seed in seeds]).reshape(len(seeds), POINTS, -1, batch).astype(np.int32)


def measure(quick: bool) -> Found:
    """Rates and seeds of a batch size are one program, which serves all orders and the sum."""
    pictures, epochs, seeds = (80, 10, 2) if quick else (400, 20, 18)
    data = digits.load(pictures)
    labels = np.asarray(data.train.y)

    def run(rates, seeds, batch, epochs, order, of_sum=False):
        scale = np.full(len(seeds), 1.0 if of_sum else 1 / batch, np.float32)
        plan = plans(seeds, labels, batch, epochs, order)
        ends = PROGRAM(np.asarray(rates, np.float32), scale, first_weights(seeds), plan, data)
        return Run(*map(np.asarray, ends))

    among = 1000 + np.arange(len(RATES) * TUNING)
    told = np.arange(len(among))  # as many, so that the same program serves; the first `seeds` are told

    def tuned(batch, epochs, order):
        trials = run(np.repeat(RATES, TUNING), among, batch, epochs, order)
        ends = np.nan_to_num(trials.loss[:, -1], nan=np.inf).reshape(len(RATES), TUNING).mean(axis=1)
        rate = RATES[int(np.argmin(ends))]
        return Tuned(rate, first(run(np.full(len(told), rate), told, batch, epochs, order)))

    def first(run):
        return Run(*(x[:seeds] for x in run))

    shuffled, by_class = "shuffled every epoch", "ordered by class"
    orders = {order: tuned(BATCH, epochs, order) for order in ORDERS}
    rate = orders[shuffled].rate
    same = lambda rate, *args: first(run(np.full(len(told), rate), told, BATCH, epochs, *args))
    ways = [tuned(pictures, BATCH * epochs, shuffled), tuned(1, epochs, shuffled), orders[shuffled]]
    instances = digits.load(128 if quick else 320).train
    return Found(
        variances(jax.tree.map(lambda p: p[0], first_weights(told)), instances, 500 if quick else 2000),
        len(instances.y),
        pictures,
        epochs,
        dict(zip(WAYS, ways, strict=True)),
        orders,
        same(rate, by_class),
        (same(rate / BATCH, shuffled, True), same(rate, shuffled, True)),
    )


def report(found: Found) -> study.Report:
    """The variance beside its formulas, the ways to descend, the orders, and sum beside mean."""
    sizes = np.array(SIZES[: found.variance.shape[1]])
    n = found.instances
    formulas = np.array([1 / sizes, (n - sizes) / (n - 1) / sizes])
    rows = [
        [str(size), *[cell for i in range(2) for cell in (formulas[i, j], of_normal(found.variance[i, j]))]]
        for j, size in enumerate(sizes)
    ]
    columns = ["B", "1 / B", "with replacement", "(N - B) / ((N - 1) B)", "without"]
    variance = study.Table(f"Variance of the gradient over s^2, N = {n}, ± 95 %", columns, rows)

    rows = []
    for name, (rate, run) in found.ways.items():
        updates, gradients = costs(found, name)
        losses = [f"{np.exp(np.log(run.loss[:, i]).mean()):.2g}" for i in (reach(gradients, found), -1)]
        rows.append([name, rate, *losses, str(updates[-1]), f"{gradients[-1]:,}", percent(run.accuracy[:, -1])])
    columns = ["an update for", "rate", "loss after equal gradients", "at the end", "updates", "gradients", "test, %"]
    seeds = len(found.same_rate.loss)
    ways = study.Table(f"Geometric mean of the training loss, {seeds} seeds, {found.pictures} pictures", columns, rows)

    runs = [(order, rate, run) for order, (rate, run) in found.orders.items()]
    runs.append(("ordered by class", found.orders["shuffled every epoch"].rate, found.same_rate))
    best = found.orders["shuffled every epoch"].run
    rows = [
        [
            order,
            rate,
            percent(run.accuracy[:, -1]),
            percent(worst(run)),
            percent(run.accuracy[:, -1] - best.accuracy[:, -1]),
        ]
        for order, rate, run in runs
    ]
    columns = ["order", "rate", "test, %", "lowest of the last 10 measurements", "difference to shuffled every epoch"]
    orders = study.Table(f"Batches of {BATCH}, {seeds} seeds, ± 95 %", columns, rows)

    right, wrong = found.sums
    rate = found.orders["shuffled every epoch"].rate
    rows = [
        [name, f"{of:g}", f"{run.loss[:, -1].mean():.3g}", f"{np.abs(run.weights - best.weights).max():.1e}"]
        for name, of, run in [("mean", rate, best), ("sum", rate / BATCH, right), ("sum", rate, wrong)]
    ]
    columns = ["over the batch", "rate", "training loss at the end", "largest distance of a weight from the mean's"]
    sums = study.Table(f"Sum and mean, batches of {BATCH}", columns, rows)
    return study.Report(
        [variance, ways, orders, sums], {"batches": _picture(found, formulas)}, findings(found, formulas)
    )


def of_normal(draws: np.ndarray) -> str:
    """The mean of many draws and half its 95 % interval."""
    return f"{draws.mean():.3g} ± {1.96 * stats.sem(draws):.1g}"


def percent(runs: np.ndarray) -> str:
    """Accuracies' mean and interval, in percent."""
    return spread.mean(100 * runs, ".1f")


def worst(run: Run) -> np.ndarray:
    """The lowest of the last 10 accuracies, `[seeds]`."""
    return run.accuracy[:, -10:].min(axis=1)


def costs(found: Found, way: str) -> tuple[np.ndarray, np.ndarray]:
    """Updates, and gradients of one instance, at each measurement."""
    batch = dict(zip(WAYS, (found.pictures, 1, BATCH), strict=True))[way]
    epochs = found.epochs * (BATCH if batch == found.pictures else 1)
    updates = np.arange(1, POINTS + 1) * (epochs * found.pictures // batch // POINTS)
    return updates, updates * batch


def reach(gradients: np.ndarray, found: Found) -> int:
    """The last measurement within the budget that all ways have in common."""
    return int(np.searchsorted(gradients, found.epochs * found.pictures, side="right")) - 1


def findings(found: Found, formulas: np.ndarray) -> list[str]:
    """What the four tables say."""
    seen = formulas > 0  # a batch of all instances has no variance
    ratio = found.variance.mean(axis=-1)[seen] / formulas[seen]
    inside = np.abs(ratio - 1) <= 1.96 * stats.sem(found.variance, axis=-1)[seen] / formulas[seen]
    told = [
        f"{inside.sum()} of {inside.size} measured variances hold the formula in their 95 % interval; the farthest is "
        f"{100 * np.abs(ratio - 1).max():.1f} % off."
    ]
    at_budget, at_end = {}, {}
    for name, (_, run) in found.ways.items():
        losses = np.exp(np.log(run.loss).mean(axis=0))
        at_budget[name], at_end[name] = losses[reach(costs(found, name)[1], found)], losses[-1]
    order = sorted(at_budget, key=at_budget.__getitem__)
    spent = found.epochs * found.pictures
    first, second, third = [f"{name} ({at_budget[name]:.2g})" for name in order]
    told.append(f"For {spent:,} gradients the lowest training loss is that of {first}, then {second} and {third}.")
    updates, _ = costs(found, f"batches of {BATCH}")
    told.append(
        f"For {updates[-1]} updates all data give {at_end['all data']:.2g}, with {found.pictures // BATCH} times the "
        f"gradients of batches of {BATCH} ({at_end[f'batches of {BATCH}']:.2g})."
    )
    mean = found.orders["shuffled every epoch"].run
    pairs = [("with the same rate", found.same_rate), ("with a rate of its own", found.orders["ordered by class"].run)]
    for when, run in pairs:
        last, low = 100 * (mean.accuracy[:, -1] - run.accuracy[:, -1]), 100 * (worst(mean) - worst(run))
        told.append(
            f"Data ordered by class {when} lose {loss_of(last)} points of test accuracy at the end and {loss_of(low)} "
            "at the worst of the last 10 measurements."
        )
    right, wrong = found.sums
    apart = np.abs(right.weights - mean.weights).max()
    told.append(
        f"With the rate a / B the sum's weights end {apart:.0e} or less from the "
        f"mean's: float32's rounding. With the rate a its training loss ends at {wrong.loss[:, -1].mean():.3g}; "
        f"guessing has log 10 = {np.log(10):.3g}."
    )
    return told


def loss_of(points: np.ndarray) -> str:
    """The mean of paired differences with a 95 % interval, bootstrapped over the seeds, for a few seeds lose most."""
    drawn = np.random.default_rng(0).choice(points, (5000, len(points))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{points.mean():.1f} ({low:.1f} to {high:.1f})"


def _picture(found: Found, formulas: np.ndarray):
    figure, ((variance, order), (by_gradients, by_updates)) = picture.panels(2, 2)
    sizes = SIZES[: found.variance.shape[1]]
    for i, (name, colour) in enumerate([("with replacement", picture.BLUE), ("without", picture.ORANGE)]):
        seen = formulas[i] > 0  # a batch of all instances has no variance
        x = np.array(sizes)[seen]
        variance.loglog(x, formulas[i][seen], color=colour, linewidth=1, label=f"{name}: formula")
        variance.loglog(x, found.variance[i].mean(axis=-1)[seen], "o", color=colour, markersize=4, label="measured")
    for name, (_, run) in found.ways.items():
        updates, gradients = costs(found, name)
        for axes, x in [(by_gradients, gradients), (by_updates, updates)]:
            picture.spread(axes, x, run.loss, WAYS[name], name)
            axes.set_xscale("log")
            axes.set_yscale("log")
    by_gradients.axvline(found.epochs * found.pictures, color=picture.INK, linewidth=0.8, linestyle=":")
    epochs = np.arange(1, POINTS + 1) * found.epochs / POINTS
    for name, (rate, run) in found.orders.items():
        picture.spread(order, epochs, 100 * run.accuracy, ORDERS[name], f"{name}, rate {rate:g}")
    rate = found.orders["shuffled every epoch"].rate
    picture.spread(order, epochs, 100 * found.same_rate.accuracy, picture.RED, f"ordered by class, rate {rate:g}")
    picture.label(variance, "variance of the gradient", "B", "variance / s²")
    picture.label(order, "order of the data", "epoch", "test accuracy, %")
    picture.label(by_gradients, "the same work", "gradients of one instance", "training loss")
    picture.label(by_updates, "the same updates", "updates", "training loss")
    for axes, place in [(variance, "lower left"), (order, "lower right"), (by_gradients, "lower left")]:
        picture.legend(axes, loc=place)
    return figure


if __name__ == "__main__":
    sys.exit(study.main("batches"))

"""Initialization: zeros, N(0, c / n), Xavier's and He's, through 50 layers.

With weights of variance c / n, a layer's sums z ~ N(0, q) become sums of mean square c E[f(z)^2] in the next layer,
and on the way back the gradient's mean square is multiplied by c E[f'(z)^2]: both factors are c for linear layers,
c / 2 for ReLU. Zeros send nothing back. And after training: how far have weights moved, beside the distance of two
runs?
"""

import functools
import itertools
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree
from jax.nn import initializers

import gradtx
from examples.textbook import digits, picture, spread, study
from examples.textbook.activations import gaussian_quadrature


class Function(NamedTuple):
    """An activation function, and in NumPy itself and its slope."""

    f: Callable
    exact: Callable
    slope: Callable


FUNCTIONS = {
    "linear": Function(lambda z: z, lambda z: z, np.ones_like),
    "ReLU": Function(jax.nn.relu, lambda z: np.maximum(z, 0), lambda z: (z > 0) * 1.0),
    "tanh": Function(jnp.tanh, np.tanh, lambda z: np.cosh(z) ** -2),
    "sigmoid": Function(jax.nn.sigmoid, lambda z: (1 + np.tanh(z / 2)) / 2, lambda z: np.cosh(z / 2) ** -2 / 4),
}
INITIALIZERS: dict[str, tuple[float, Callable]] = {  # with their c, where a layer has as many inputs as outputs
    **{f"N(0, {c}/n)": (c, initializers.variance_scaling(c, "fan_in", "normal")) for c in (1, 2, 3)},
    "Xavier": (1, initializers.glorot_normal()),
    "He": (2, initializers.he_normal()),
    "zeros": (0, initializers.zeros),
}
OPTIMIZERS = {"momentum": gradtx.sgd(0.05, momentum=0.9), "Adam": gradtx.adam(1e-3)}
WIDTH = 256


class Moved(NamedTuple):
    """Distances of all weights in units of |W_0|: of an end from its start, of two ends, of two starts. One per run."""

    start: np.ndarray
    ends: np.ndarray
    starts: np.ndarray


class Found(NamedTuple):
    """What was measured.

    Attributes:
      signal: mean square of each layer's sums, `{(initializer, function): [seeds, layers]}`.
      gradient: mean square of the gradient with respect to them, where the last layer's is 1 on average.
      zeros: largest gradient in 20 steps from zeros, by parameter of the digits network.
      moved: by optimizer and width of the digits network.
    """

    signal: dict[tuple[str, str], np.ndarray]
    gradient: dict[tuple[str, str], np.ndarray]
    zeros: dict[str, float]
    moved: dict[tuple[str, int], Moved]


def measure(quick: bool) -> Found:
    """Sends 32 random inputs and gradients through 8 deep networks of each kind, and trains 5 shallow ones."""
    depth, seeds, widths = (10, 3, (64,)) if quick else (50, 8, (64, 256))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds))
    signal, gradient = {}, {}
    for name, (_, initializer) in INITIALIZERS.items():
        draw = lambda key, initializer=initializer: initializer(key, (WIDTH, WIDTH))
        weights = jax.jit(jax.vmap(jax.vmap(draw)))(jax.vmap(lambda key: jax.random.split(key, depth))(keys))
        for function, (forward, backward) in mean_squares(weights, keys).items():
            signal[name, function] = np.asarray(forward, np.float64) ** 2
            gradient[name, function] = np.asarray(backward, np.float64) ** 2
    runs = jnp.arange(3 if quick else 5)
    chosen = dict(list(OPTIMIZERS.items())[: 1 if quick else None])
    moved = {
        (name, width): distances(*train(tx, width, runs, steps=100 if quick else 600))
        for (name, tx), width in itertools.product(chosen.items(), widths)
    }
    return Found(signal, gradient, gradients_from_zeros(), moved)


@jax.jit
def mean_squares(weights: jax.Array, keys: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The root mean squares, `[seeds, layers]`, of sums and of gradients, by function.

    Args:
      weights: `[seeds, layers, n, n]`.
      keys: of the random inputs and of the random gradients that enter behind the last layer, `[seeds]`.
    """

    def run(f, weights, key):
        x, back = jax.random.normal(key, (2, 32, weights.shape[-1]))

        def sums(shift):  # the gradient with respect to what is added to a sum is the gradient with respect to the sum
            def layer(h, here):
                z = h @ here[0] + here[1]
                return f(z), z

            z = jax.lax.scan(layer, x, (weights, shift))[1]
            return z[-1], z

        _, pull, z = jax.vjp(sums, jnp.zeros((len(weights), *x.shape)), has_aux=True)
        rms = lambda a: jnp.sqrt(jnp.mean((a / (peak := jnp.max(abs(a)) + 1e-37)) ** 2)) * peak  # of tiny ones too
        return jax.vmap(rms)(z), jax.vmap(rms)(*pull(back))

    return {
        name: jax.vmap(lambda w, key, f=function.f: run(f, w, key))(weights, keys)
        for name, function in FUNCTIONS.items()
    }


def theory(function: Function, c: float, depth: int) -> tuple[np.ndarray, np.ndarray]:
    """The mean squares of sums and of gradients at infinite width, `[depth]` each, for inputs of mean square 1."""
    nodes, weights = gaussian_quadrature()
    signal, factors = [float(c)], []
    for _ in range(depth - 1):
        z = np.sqrt(signal[-1]) * nodes
        signal.append(c * (weights @ function.exact(z) ** 2))
        factors.append(c * (weights @ function.slope(z) ** 2))
    return np.array(signal), np.cumprod([1.0, *factors[::-1]])[::-1]


def growth(squares: np.ndarray) -> np.ndarray:
    """The geometric mean of the factors from one layer to the next, over the last axis."""
    return (squares[..., -1] / squares[..., 0]) ** (1 / (squares.shape[-1] - 1))


def gradients_from_zeros(steps: int = 20) -> dict[str, float]:
    """Trains the digits network from zeros: the largest gradient that each parameter ever has."""
    graph, shapes = nnx.split(nnx.eval_shape(lambda: digits.Perceptron(nnx.Rngs(0))))
    data, tx = digits.load().train, OPTIMIZERS["momentum"]

    def step(carry, _):
        params, state = carry
        grads = jax.grad(lambda p: digits.cross_entropy(nnx.merge(graph, p), *data))(params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), jax.tree.map(lambda g: jnp.max(abs(g)), grads)

    zeros = jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), shapes)
    _, largest = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), length=steps))(zeros)
    return {"/".join(map(str, path)): float(g[...].max()) for path, g in nnx.to_flat_state(largest)}


def train(tx: Any, width: int, seeds: jax.Array, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The digits network's parameters at the start and at the end, `[seeds, parameters]` each."""
    data, network = digits.load(), functools.partial(digits.Perceptron, widths=(width, width))

    def run(seed):
        start = digits.begin(tx, seed, network)
        end = digits.advance(tx, start, data, steps, network=network)
        return ravel_pytree(start.params)[0], ravel_pytree(end.params)[0]

    start, end = jax.jit(jax.vmap(run))(seeds)
    return np.asarray(start, np.float64), np.asarray(end, np.float64)


def distances(start: np.ndarray, end: np.ndarray) -> Moved:
    """|W_T - W_0|, |W_T - W_T'| and |W_0 - W_0'| over |W_0|; W' is the next run's."""
    size = np.linalg.norm(start, axis=1)
    pairs = [end - start, end - np.roll(end, 1, axis=0), start - np.roll(start, 1, axis=0)]
    return Moved(*(np.linalg.norm(difference, axis=1) / size for difference in pairs))


def report(found: Found) -> study.Report:
    """Growth per layer beside theory, the layers' mean squares, and how far training went."""
    seeds, depth = next(iter(found.signal.values())).shape
    rows, gaps = [], []
    for name, (c, _) in INITIALIZERS.items():
        for function in FUNCTIONS if c else ():
            signal, gradient = theory(FUNCTIONS[function], c, depth)
            cells = []
            for squares, expected in (
                (found.signal[name, function], growth(signal)),
                (found.gradient[name, function][:, ::-1], growth(gradient[::-1])),
            ):
                mean, half = spread.interval(growth(squares))
                gaps.append(abs(mean / expected - 1))
                cells += [f"{mean:.4f} ± {half:.4f}", expected]
            total = np.exp(np.log(found.gradient[name, function][:, 0]).mean())
            rows.append([name, function, *cells, f"{total:.1e}"])
    columns = ["weights", "f", "signal, factor", "theory", "gradient, factor", "theory", "gradient in layer 1"]
    deep = study.Table(
        f"Mean squares from layer to layer: {depth} layers of {WIDTH}, {seeds} seeds, 95 % t-intervals", columns, rows
    )
    far = [
        [name, str(width), *(f"{mean:.3f} ± {half:.3f}" for mean, half in map(spread.interval, moved))]
        for (name, width), moved in found.moved.items()
    ]
    columns = ["optimizer", "width", "|W_T - W_0|", "|W_T - W_T'|", "|W_0 - W_0'|"]
    count = len(next(iter(found.moved.values())).start)
    trained = study.Table(f"The digits network: distances over |W_0|, {count} seeds, 95 % t-intervals", columns, far)
    blank = study.Table(
        "The digits network from zeros: largest gradient in 20 steps", ["parameter", "gradient"], [*found.zeros.items()]
    )
    figures = {"initialization": _layers(found, depth), "initialization_distance": _bars(found)}
    return study.Report([deep, blank, trained], figures, _findings(found, max(gaps)))


def _layers(found: Found, depth: int) -> Any:
    figure, grid = picture.panels(4, 2, width=2.4, height=2.1)
    layers = np.arange(1, depth + 1)
    for column, (function, exact) in enumerate(FUNCTIONS.items()):
        for c, colour in zip((1, 2, 3), picture.COLOURS, strict=False):
            expected = theory(exact, c, depth)
            for row, measured in enumerate((found.signal, found.gradient)):
                axes = grid[row, column]
                picture.spread(axes, layers, measured[f"N(0, {c}/n)", function], colour, f"c = {c}")
                axes.semilogy(layers, expected[row], ":", color=picture.INK, linewidth=1.2)
        picture.label(grid[0, column], function, "", "mean square of sums" if column == 0 else "")
        picture.label(grid[1, column], "", "layer", "mean square of gradients" if column == 0 else "")
    picture.legend(grid[0, 0], loc="upper left")
    return figure


def _bars(found: Found) -> Any:
    figure, ((axes,),) = picture.panels(1, width=5.0)
    names = ["end from its start", "end from another end", "start from another start"]
    for i, (name, colour) in enumerate(zip(names, picture.COLOURS, strict=False)):
        means, halves = zip(*(spread.interval(moved[i]) for moved in found.moved.values()), strict=True)
        places = np.arange(len(means)) + 0.27 * (i - 1)
        axes.bar(places, means, 0.25, yerr=halves, color=colour, ecolor=picture.INK, label=name)
    axes.set_xticks(np.arange(len(found.moved)), [f"{name}\nwidth {width}" for name, width in found.moved])
    axes.set_ylim(0, 1.5 * max(moved.ends.max() for moved in found.moved.values()))
    picture.label(axes, "distances of all weights", "", "over |W₀|")
    picture.legend(axes, loc="upper center", ncols=1)
    return figure


def _findings(found: Found, gap: float) -> list[str]:
    silent = max(g[:, :-1].max() for (name, _), g in found.gradient.items() if name == "zeros")
    kept = [name for name, g in found.zeros.items() if g == 0]
    ratios = {key: (moved.start / moved.ends).mean() for key, moved in found.moved.items()}
    apart = np.mean([(moved.ends / moved.starts).mean() for moved in found.moved.values()])
    told = ", ".join(f"{name} with width {width} {ratio:.2f}" for (name, width), ratio in ratios.items())
    nearer = sum(ratio < 1 for ratio in ratios.values())
    return [
        f"Measured factors and theory, which is for infinite width, differ by at most {gap:.1%} per layer.",
        f"In deep networks of zeros the largest gradient in front of the last layer is {silent:g}.",
        f"From zeros the digits network's gradient is exactly 0 in {', '.join(kept)}. What learns: "
        f"{', '.join(name for name in found.zeros if name not in kept)}.",
        f"Weights stay closer to their start than to another run's end in {nearer} of {len(ratios)} settings. "
        f"|W_T - W_0| over |W_T - W_T'|: {told}.",
        f"Two ends lie {apart:.2f} times as far apart as their two starts on average.",
    ]


if __name__ == "__main__":
    sys.exit(study.main("initialization"))

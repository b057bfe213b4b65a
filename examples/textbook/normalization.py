"""Dropout and normalization, as formulas.

Batch normalization: (x - mean) / sqrt(variance + eps) gamma + beta, mean and variance of each feature over the batch in
training, their running averages at test time. Layer normalization: the same over the features of each example.
RMS normalization: x / sqrt(mean(x^2) + eps) gamma, over the features.
Dropout: zero with probability p in training, and weights times 1 - p at test time; inverted dropout divides what is
kept by 1 - p in training and does nothing at test time. Each is compared here with Flax NNX.
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from examples.textbook import digits, picture, spread, study

P = 0.3  # what dropout zeroes
EPS = 1e-5
MOMENTUM = 0.9  # of batch normalization's running averages
CASES = {
    "a linear layer, its inputs dropped": picture.BLUE,
    "a network, its hidden units dropped": picture.GREEN,
    "a network, its inputs dropped": picture.ORANGE,
}


class Found(NamedTuple):
    """What was compared.

    Attributes:
      differences: (layer, formula, largest difference from Flax, largest output).
      before, after: activations `[batch, features]` that are no longer scaled well, and by layer, normalized.
      masks: how many masks were averaged, `[sizes]`.
      error: relative distance of the average from the test-time output, `[seeds, cases, sizes]`.
      scaled: largest relative difference between dropout with weights W and inverted dropout with (1 - p) W.
    """

    differences: list[tuple[str, str, float, float]]
    before: np.ndarray
    after: dict[str, np.ndarray]
    masks: np.ndarray
    error: np.ndarray
    scaled: float


def normalized(x, mean, variance, gamma, beta, eps):
    """(x - mean) / sqrt(variance + eps) gamma + beta."""
    return (x - mean) / np.sqrt(variance + eps) * gamma + beta


def batch_norm(x, gamma, beta, eps):
    """Mean and variance of each feature over the batch, the first axis."""
    return normalized(x, x.mean(axis=0), x.var(axis=0), gamma, beta, eps)


def layer_norm(x, gamma, beta, eps):
    """Mean and variance of each example over its features, the last axis."""
    return normalized(x, x.mean(axis=-1, keepdims=True), x.var(axis=-1, keepdims=True), gamma, beta, eps)


def rms_norm(x, gamma, eps):
    """x / RMS(x) gamma over the features; neither mean nor beta."""
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * gamma


def running(average, x, momentum):
    """The running averages of mean and variance after one more batch."""
    return tuple(momentum * old + (1 - momentum) * new for old, new in zip(average, (x.mean(0), x.var(0)), strict=True))


PLAIN = {
    "batch norm": lambda x: batch_norm(x, 1, 0, EPS),
    "layer norm": lambda x: layer_norm(x, 1, 0, EPS),
    "RMS norm": lambda x: rms_norm(x, 1, EPS),
}


def measure(quick: bool) -> Found:
    """Compares layers with formulas, and averages dropout over masks: 5 seeds, up to 16384 masks each."""
    x = digits.load().train.x[:256]
    before = jax.jit(_badly_scaled)(x)
    flax = jax.tree.map(np.asarray, flax_layers(before))
    before = np.asarray(before, np.float64)
    expected = formulas(before, flax["dropout, training"] != 0)
    differences = [
        (name, formula, float(np.abs(flax[name] - y).max()), float(np.abs(y).max()))
        for name, (formula, y) in expected.items()
    ]
    after = {name: layer(before) for name, layer in PLAIN.items()}
    masks = 4 ** np.arange(5 if quick else 8)
    seeds = jnp.arange(3 if quick else 5)
    error = jax.jit(jax.vmap(lambda seed: averaging_error(seed, x[:8], masks)))(seeds)
    return Found(differences, before, after, masks, np.asarray(error), _scaled(np.asarray(x, np.float64)))


def _badly_scaled(x):
    """Sums of a layer whose weights are three times too large and whose biases are not 0."""
    weights_key, bias_key = jax.random.split(jax.random.key(0))
    return x @ (3 / 8 * jax.random.normal(weights_key, (64, 64))) + 3 + jax.random.normal(bias_key, (64,))


def gamma_and_beta() -> tuple[np.ndarray, np.ndarray]:
    """Factors and offsets that are not 1 and 0, float32."""
    rng = np.random.default_rng(0)
    return rng.normal(size=64).astype(np.float32), rng.normal(size=64).astype(np.float32)


@jax.jit
def flax_layers(x: jax.Array) -> dict[str, jax.Array]:
    """What Flax's layers make of activations `[batch, 64]`; batch normalization has seen them in four batches."""
    gamma, beta = gamma_and_beta()
    drawn = {"epsilon": EPS, "scale_init": lambda *_: jnp.asarray(gamma), "rngs": nnx.Rngs(0)}
    norm = nnx.BatchNorm(64, momentum=MOMENTUM, bias_init=lambda *_: jnp.asarray(beta), **drawn)
    layer = nnx.LayerNorm(64, bias_init=lambda *_: jnp.asarray(beta), **drawn)
    trained = jnp.concatenate([norm(batch) for batch in jnp.split(x, 4)])
    dropout = nnx.Dropout(P)
    return {
        "batch norm, training": trained,
        "its running mean": norm.mean[...],
        "its running variance": norm.var[...],
        "batch norm, test": norm(x, use_running_average=True),
        "layer norm": layer(x),
        "RMS norm": nnx.RMSNorm(64, **drawn)(x),
        "dropout, training": dropout(x, rngs=jax.random.key(1)),
        "dropout, test": dropout(x, deterministic=True),
    }


def formulas(x: np.ndarray, mask: np.ndarray) -> dict[str, tuple[str, np.ndarray]]:
    """The same by the formulas, which stand beside the numbers; `mask` says what dropout kept."""
    gamma, beta = gamma_and_beta()
    batches = np.split(x, 4)
    average = np.zeros(64), np.ones(64)
    for batch in batches:
        average = running(average, batch, MOMENTUM)
    mean, variance = average
    return {
        "batch norm, training": (
            "(x - m_B) / sqrt(v_B + eps) gamma + beta",
            np.concatenate([batch_norm(batch, gamma, beta, EPS) for batch in batches]),
        ),
        "its running mean": ("0.9 m + 0.1 m_B", mean),
        "its running variance": ("0.9 v + 0.1 v_B, v_B over n, not n - 1", variance),
        "batch norm, test": ("(x - m) / sqrt(v + eps) gamma + beta", normalized(x, mean, variance, gamma, beta, EPS)),
        "layer norm": ("(x - m_x) / sqrt(v_x + eps) gamma + beta", layer_norm(x, gamma, beta, EPS)),
        "RMS norm": ("x / sqrt(mean x² + eps) gamma", rms_norm(x, gamma, EPS)),
        "dropout, training": ("x / (1 - p), or 0 with probability p", mask * x / (1 - P)),
        "dropout, test": ("x", x),
    }


def _scaled(x: np.ndarray) -> float:
    """Weights W that are scaled at test time, and inverted dropout with (1 - p) W: their outputs in training."""
    rng = np.random.default_rng(0)
    weights, mask = rng.normal(size=(64, 10)), rng.random(x.shape) >= P
    plain, inverted = (mask * x) @ weights, (mask * x / (1 - P)) @ ((1 - P) * weights)
    return float(np.abs(plain - inverted).max() / np.abs(plain).max())


def averaging_error(seed: jax.Array, x: jax.Array, masks: np.ndarray) -> jax.Array:
    """|average over n masks - output without dropout| / |output without dropout|, `[cases, sizes]`.

    Args:
      seed: of the weights and the masks.
      x: pictures `[n, 64]`.
      masks: the sizes n, growing.
    """
    weights_key, mask_key = jax.random.split(jax.random.key(seed))
    network = digits.Perceptron(nnx.Rngs(weights_key), widths=(64,))
    dropout = nnx.Dropout(P)

    def outputs(drop):
        return jnp.stack(
            [
                network.last(drop(x)),
                network.last(drop(nnx.relu(network.hidden[0](x)))),
                network.last(nnx.relu(network.hidden[0](drop(x)))),
            ]
        )

    whole = outputs(lambda x: x)
    norm = lambda y: jnp.sqrt(jnp.sum(y**2, axis=(1, 2)))

    def add(total, i):
        key = jax.random.fold_in(mask_key, i)
        total = total + outputs(lambda x: dropout(x, rngs=key))
        return total, norm(total / (i + 1) - whole) / norm(whole)

    _, errors = jax.lax.scan(add, jnp.zeros_like(whole), jnp.arange(masks[-1]))
    return errors[masks - 1].T


def slope(masks: np.ndarray, error: np.ndarray) -> tuple[float, float]:
    """The exponent of error = C masks^exponent: mean over seeds `[seeds, sizes]` and half its 95 % t-interval."""
    slopes = np.polyfit(np.log(masks), np.log(error).T, 1)[0]
    return spread.interval(slopes)


def report(found: Found) -> study.Report:
    """Two tables, the histograms, and the error against the number of masks."""
    layers = [[name, formula, f"{gap:.1e}", size] for name, formula, gap, size in found.differences]
    last = found.error[:, :, -1]
    rows = []
    for i, case in enumerate(CASES):
        exponent, half = slope(found.masks, found.error[:, i])
        rows.append([case, f"{exponent:.3f} ± {half:.3f}", np.median(found.error[:, i, 0]), np.median(last[:, i])])
    tables = [
        study.Table(
            "Flax NNX in float32 against formulas in float64",
            ["layer", "formula", "largest difference", "largest output"],
            layers,
        ),
        study.Table(
            f"Distance of dropout's average from the test-time output, {len(found.error)} seeds, p = {P:g}",
            ["case", "exponent, 95 % CI", "1 mask", f"{found.masks[-1]} masks"],
            rows,
        ),
    ]

    figure, ((left, right),) = picture.panels(2)
    bins = np.linspace(-12, 20, 97)
    for (name, x), colour in zip({"before": found.before, **found.after}.items(), picture.COLOURS, strict=False):
        left.hist(x.ravel(), bins=bins, density=True, histtype="step", linewidth=1.5, color=colour, label=name)
    picture.label(left, "activations of a badly scaled layer", "value", "density")
    picture.legend(left)
    for i, (case, colour) in enumerate(CASES.items()):
        picture.spread(right, found.masks, found.error[:, i], colour, case)
    right.loglog(
        found.masks, np.median(found.error[:, 0, 0]) * found.masks**-0.5, ":", color=picture.INK, label="$n^{-1/2}$"
    )
    picture.label(right, "average over n masks, distance from test time", "n", "relative distance")
    picture.legend(right, loc="lower left")

    worst = max(gap / size for _, _, gap, size in found.differences)
    moments = "; ".join(f"{name} {x.mean():.2f} and {x.std():.2f}" for name, x in found.after.items())
    bent = np.median(last[:, 2])
    times = bent / np.median(found.error[:, 2, 0]) / found.masks[-1] ** -0.5
    findings = [
        f"The largest difference of a Flax layer from its formula is {worst:.0e} of its largest output.",
        f"Mean and deviation of the activations: {found.before.mean():.2f} and {found.before.std():.2f} before; "
        f"{moments}.",
        f"Dropout with weights W and inverted dropout with (1 - p) W differ by {found.scaled:.0e} in training, and at "
        "test time both use (1 - p) W: they are one method in two notations.",
        f"For a linear layer the average goes to the test-time output with exponent {rows[0][1]}; -1/2 is the law of "
        f"large numbers. For the network whose inputs are dropped {bent:.3f} remain after {found.masks[-1]} masks, "
        f"{times:.0f} times what sampling alone would leave: behind a nonlinearity the test-time output is not the "
        "average.",
    ]
    return study.Report(tables, {"normalization": figure}, findings)


if __name__ == "__main__":
    sys.exit(study.main("normalization"))

"""Gradient clipping and monitoring: a recurrent network whose gradients explode.

A network reads the digits pixel by pixel, h <- relu(W h + V x + b), 64 times, so a gradient passes through W 64 times.
`clip_by_global_norm` scales it down where its norm exceeds a bound. `monitor` wraps the whole chain and keeps in its
state what is drawn here: learning rate, norms, the ratio of update to weight per layer, clipped and skipped steps.
"""

import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradtx
from examples.textbook import digits, picture, spread, study
from gradtx import tuning

BOUNDS = {"0.1": 0.1, "1": 1.0, "10": 10.0, "none": 1e30}
RATE = 0.03
BATCH = 32
SEEDS = 5
STEPS = 400


class Recurrent(nnx.Module):
    """Reads 64 pixels one after another; its last hidden state, of `units` numbers, gives the class."""

    def __init__(self, rngs: nnx.Rngs, units: int = 32):
        start = lambda key, shape, dtype=jnp.float32, **_: jnp.eye(*shape, dtype=dtype)  # what is seen stays
        self.cell = nnx.SimpleCell(1, units, activation_fn=nnx.relu, recurrent_kernel_init=start, rngs=rngs)
        self.last = nnx.Linear(units, digits.CLASSES, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Logits `[n, 10]` of pictures `[n, 64]`."""
        start = jnp.zeros((len(x), self.cell.hidden_features))
        h, _ = jax.lax.scan(self.cell, start, x.T[:, :, None])
        return self.last(h)


def transformation(bound: float | tuning.choice) -> gradtx.GradientTransformation:
    """SGD with momentum behind a clip; a step that is not finite is skipped; all of it is watched."""
    schedule = gradtx.cosine_decay_schedule(RATE, STEPS)
    chain = gradtx.chain(gradtx.clip_by_global_norm(bound), gradtx.sgd(schedule, momentum=0.9))
    return gradtx.monitor(gradtx.apply_if_finite(chain))


def train(tx: gradtx.GradientTransformation, seed: jax.Array, data: digits.Data, steps: int) -> dict[str, jax.Array]:
    """The loss and the metrics of every step, `[steps]`, and the validation accuracy at the end."""
    model_key, batch_key = jax.random.split(jax.random.key(seed))
    graph, params, rest = nnx.split(Recurrent(nnx.Rngs(model_key)), nnx.Param, ...)

    def step(carry, t):
        params, state = carry
        rows = jax.random.randint(jax.random.fold_in(batch_key, t), (BATCH,), 0, len(data.train.y))
        x, y = data.train.x[rows], data.train.y[rows]
        loss = lambda params: digits.cross_entropy(nnx.merge(graph, params, rest), x, y)
        value, grads = jax.value_and_grad(loss)(params)
        updates, state = tx.update(grads, state, params)
        return (gradtx.apply_updates(params, updates), state), {"loss": value} | gradtx.metrics(state)

    (params, _), seen = jax.lax.scan(step, (params, tx.init(params)), jnp.arange(steps))
    right = jnp.argmax(nnx.merge(graph, params, rest)(data.validation.x), axis=-1) == data.validation.y
    return seen | {"accuracy": jnp.mean(right)}


class Found(NamedTuple):
    """What every bound and seed showed: arrays `[bounds, seeds, steps]`; "accuracy" `[bounds, seeds]`."""

    seen: dict[str, np.ndarray]


def measure(quick: bool) -> Found:
    """All bounds and seeds in one program."""
    seeds, steps = (2, 12) if quick else (SEEDS, STEPS)
    bounds = tuning.choice([*BOUNDS.values()])
    members = tuning.grid((transformation(bounds), tuning.choice(range(seeds))))
    seen = tuning.run_population(lambda member, data: train(member[0], member[1], data, steps), members, digits.load())
    return Found({name: np.asarray(x).reshape(len(BOUNDS), seeds, *x.shape[1:]) for name, x in seen.items()})


def report(found: Found) -> study.Report:
    """What clipping did to loss and norms, and what the monitor saw."""
    seen = found.seen
    _, seeds, steps = seen["loss"].shape
    late = np.mean(seen["loss"][..., -max(1, steps // 10) :], axis=-1)  # the last tenth, so that batches average out
    rows = []
    for i, name in enumerate(BOUNDS):
        largest = np.nanmax(np.where(np.isfinite(seen["gradient_norm"][i]), seen["gradient_norm"][i], np.nan), axis=-1)
        rows.append([name, spread.median(late[i]), spread.median(seen["accuracy"][i]), f"{np.median(largest):.3g}"])
        rows[-1] += [
            f"{np.median(seen['clipped_fraction'][i, :, -1]):.1%}",
            spread.median(seen["skipped_steps"][i, :, -1]),
        ]
    columns = [
        "bound",
        "loss, last tenth",
        "validation accuracy",
        "largest finite gradient norm",
        "clipped",
        "skipped steps",
    ]
    table = study.Table(f"SGD with momentum, {steps} steps, {seeds} seeds: median (lowest to highest)", columns, rows)

    figure, grid = picture.panels(3, 2, height=2.5)
    step = np.arange(1, steps + 1)
    panels = {"loss": "loss", "gradient_norm": "gradient norm", "update_norm": "update norm"}
    panels |= {"clipped_fraction": "share of steps clipped so far", "skipped_steps": "steps skipped so far"}
    for axes, (key, title) in zip(grid.flat, panels.items(), strict=False):
        for i, (name, colour) in enumerate(zip(BOUNDS, picture.COLOURS, strict=False)):
            picture.spread(axes, step, seen[key][i], colour, f"bound {name}" if name != "none" else "no clip")
        if key not in ("clipped_fraction", "skipped_steps"):
            axes.set_yscale("log")
        picture.label(axes, title, "step")
    grid[0, 0].set_ylim(0.5 * np.nanmin(seen["loss"]), 1e3)  # where the run without a clip is on its way to infinity
    picture.legend(grid[1, 0], loc="center right")
    ratios = {name: x for name, x in seen.items() if name.startswith("update_ratio/") and not name.endswith("bias")}
    for (name, x), colour in zip(ratios.items(), picture.COLOURS[4:], strict=False):
        layer = name.removeprefix("update_ratio/").removesuffix("/kernel")
        grid[1, 2].plot(step, np.median(x[1], axis=0), color=colour, linewidth=1.2, label=layer)
    rate = seen["learning_rate"][1, 0]
    grid[1, 2].plot(step, rate, color=picture.INK, linewidth=1.2, linestyle="--", label="learning rate")
    grid[1, 2].set_yscale("log")
    picture.label(grid[1, 2], "update to weight ratio per layer, bound 1", "step")
    picture.legend(grid[1, 2])

    median = np.median(late, axis=1)
    best = int(np.nanargmin(median))
    skipped = np.median(seen["skipped_steps"][-1, :, -1])
    alone = (
        f"ended at {median[-1]:.3g}" if np.isfinite(median[-1]) else f"was lost: {skipped:.0f} steps were not finite"
    )
    findings = [
        f"Best: bound {[*BOUNDS][best]}, loss {median[best]:.3g} (a constant guess has {np.log(digits.CLASSES):.3g}). "
        f"Without a clip the run {alone}. A norm that overflows is above every bound, so it counts as clipped."
    ]
    halfway = [[f"`{name}`", x[1, 0, steps // 2]] for name, x in seen.items() if name not in ("loss", "accuracy")]
    title = "`gradtx.metrics(state)` after half of the steps, bound 1, the first seed"
    read = study.Table(title, ["metric", "value"], halfway)
    return study.Report([table, read], {"clipping": figure}, findings)


if __name__ == "__main__":
    sys.exit(study.main("clipping"))

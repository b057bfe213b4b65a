"""What is learned: a GPT on the bytes of a text, and a perceptron on what a teacher says."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

import gradtx
from examples.textbook.digits import CLASSES, Perceptron, structure
from examples.train_lm_sharded.model import GPT, Sizes
from examples.train_lm_sharded.text import read_text

PIECE = 2048  # bytes of a text that are held back together, or not
PIECES = 20  # of so many one is for choosing by, and one for stating the result on
PIXELS = 64  # inputs of the digits' perceptron


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """Something to learn, with all of its sizes.

    Attributes:
      name: how it is asked for.
      about: what it is, for the page.
      unit: of what is measured; less is better.
      setting: all that its numbers depend on but the optimizer: records of other settings are not mixed.
      begin: seed -> first parameters.
      loss: (params, data, key) -> loss of a new batch.
      measure: (params, held, key) -> what the run is judged by.
      data: arrays to train on.
      held: arrays to measure on: "validation", to choose by, and "test", to state the result on.
      steps: of a whole run.
      together: runs that are trained side by side in one program.
    """

    name: str
    about: str
    unit: str
    setting: Mapping[str, Any]
    begin: Callable[[int], Any]
    loss: Callable[[Any, Any, Array], Array]
    measure: Callable[[Any, Any, Array], Array]
    data: Any
    held: Mapping[str, Any]
    steps: int
    together: int


# A batch of 12 x 64 bytes: its activations stay in a core's cache. 16 x 64 take twice as long.
GPT_SIZES = Sizes(layers=4, width=96, heads=4, context=64)


def gpt(
    path: Path | None = None, *, sizes: Sizes = GPT_SIZES, batch: int = 12, looked_at: int = 96, steps: int = 448
) -> Task:
    """Half a million parameters learn a text byte by byte. Measured: cross-entropy of bytes that are held back.

    Args:
      path: of the text; None: Python's manual.
      sizes: of the network.
      batch: pieces of a text in a batch.
      looked_at: pieces that a look measures, other ones for each seed.
      steps: of a run.
    """
    piece = sizes.context + 1
    text = read_text(path, PIECE * PIECES)
    parts = {name: jnp.asarray(x) for name, x in divided(text.data).items()}
    split = lambda key: nnx.split(GPT(sizes, rotary=True, rngs=nnx.Rngs(key)), nnx.Param)
    graph, shapes = nnx.eval_shape(lambda: split(0))
    begin = jax.jit(lambda seed: _silent(nnx.to_pure_dict(split(jax.random.key(seed))[1])))

    def cut(data: Array, key: Array, rows: int) -> Array:
        places = jax.random.randint(key, (rows, 1), 0, len(data) - piece + 1)
        return data[places + jnp.arange(piece)].astype(jnp.int32)

    def cross_entropy(params: Any, tokens: Array) -> Array:
        logits = nnx.merge(graph, params)(tokens[:, :-1])
        return gradtx.losses.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:]).mean()

    def measure(params: Any, held: Array, key: Array) -> Array:
        batches = cut(held, key, looked_at).reshape(-1, batch, piece)  # as large as those of training
        return jnp.mean(jax.lax.map(lambda tokens: cross_entropy(params, tokens), batches))

    count = sum(x.size for x in jax.tree.leaves(shapes))
    about = (
        f"A GPT of {count:,} parameters ({sizes.layers} layers, width {sizes.width}, {sizes.heads} heads, context "
        f"{sizes.context}, rotary positions, blocks that begin at 0) on the bytes of {text.name} "
        f"({len(text.data):,}), {batch} pieces a batch, {steps} steps. Of every {PIECES} stretches of {PIECE} bytes "
        "one is held back to choose by, and one to state the result on."
    )
    network = {**dataclasses.asdict(sizes), "rotary": True}
    setting = {**network, "batch": batch, "looked_at": looked_at, "text": text.digest}
    loss = lambda params, data, key: cross_entropy(params, cut(data, key, batch))
    held = {name: parts[name] for name in ("validation", "test")}
    return Task("gpt", about, "nats per byte", setting, begin, loss, measure, parts["train"], held, steps, 1)


def _silent(params: Any) -> Any:
    """The parameters with every block adding nothing at first: what writes into the residual stream is 0."""
    writes = {"out", "down"}  # layers
    leaf = lambda path, p: jnp.zeros_like(p) if writes & {step.key for step in path} else p
    return jax.tree_util.tree_map_with_path(leaf, params)


def divided(data: np.ndarray) -> dict[str, np.ndarray]:
    """A text in three: every 20th stretch is "validation", every 20th "test", both of one length, the rest "train"."""
    pieces = data[: len(data) // (PIECE * PIECES) * PIECE * PIECES].reshape(-1, PIECE)
    turn = np.arange(len(pieces)) % PIECES
    chosen = {"validation": turn == PIECES // 2, "test": turn == PIECES - 1}
    chosen["train"] = ~(chosen["validation"] | chosen["test"])
    return {name: pieces[rows].ravel() for name, rows in chosen.items()}


def perceptron(
    *,
    widths: tuple[int, ...] = (128, 128),
    batch: int = 128,
    looked_at: int = 2048,
    steps: int = 1024,
    together: int = 4,
) -> Task:
    """A perceptron learns to draw labels as another one does. Measured: the divergence from it, on new inputs.

    The digits that come with scikit-learn are learned to the noise of 360 test pictures by any optimizer. Here every
    batch is new, so nothing is learned by heart: what is measured is optimization. Inputs have variances that fall as a
    power, as those of pictures do, so directions are learned one after another; labels are drawn, so gradients have a
    noise that a decaying rate must average out; and the least loss is known, 0.

    Args:
      widths: of the hidden layers, the teacher's and the student's.
      batch: inputs in a batch.
      looked_at: inputs that a look measures, other ones for each seed.
      steps: of a run.
      together: runs side by side.
    """
    network = lambda rngs: Perceptron(rngs, widths)
    graph = structure(network)
    split = lambda seed: nnx.to_pure_dict(nnx.split(network(nnx.Rngs(jax.random.key(seed))), nnx.Param)[1])
    begin = jax.jit(split)
    scales = jnp.arange(1, PIXELS + 1) ** -0.5
    scales = scales * jnp.sqrt(PIXELS / jnp.sum(scales**2))
    # Weights of three times the usual size: the answers bend between inputs, and most of them are sure.
    teacher = jax.tree.map(lambda p: 3 * p if p.ndim == 2 else p, split(2**20))

    def inputs(key: Array, rows: int) -> Array:
        return jax.random.normal(key, (rows, PIXELS)) * scales

    def answers(params: Any, x: Array) -> Array:
        return jax.nn.log_softmax(nnx.merge(graph, params)(x))

    def loss(params: Any, teacher: Any, key: Array) -> Array:
        inputs_key, labels_key = jax.random.split(key)
        x = inputs(inputs_key, batch)
        labels = jax.random.categorical(labels_key, answers(teacher, x))
        return gradtx.losses.softmax_cross_entropy_with_integer_labels(answers(params, x), labels).mean()

    def measure(params: Any, held: Any, key: Array) -> Array:
        teacher, part = held
        x = inputs(jax.random.fold_in(key, part), looked_at)
        true = answers(teacher, x)
        return jnp.mean(jnp.sum(jnp.exp(true) * (true - answers(params, x)), axis=-1))

    sizes = " x ".join(map(str, (PIXELS, *widths, CLASSES)))
    about = (
        f"A perceptron ({sizes}) learns labels that are drawn as a perceptron of the same sizes with larger weights "
        f"says, from inputs whose i-th variance falls as 1 / i; {batch} new ones a batch, {steps} steps."
    )
    setting = {"widths": list(widths), "batch": batch, "looked_at": looked_at}
    held = {"validation": (teacher, jnp.int32(0)), "test": (teacher, jnp.int32(1))}
    unit = "nats above the teacher"
    return Task("perceptron", about, unit, setting, begin, loss, measure, teacher, held, steps, together)


@functools.cache  # a task's programs are kept for as long as it is the same
def quick(name: str, path: Path | None = None) -> Task:
    """A task of seconds, which shows that the program runs, not what is true."""
    if name == "gpt":
        return gpt(path, sizes=Sizes(layers=1, width=16, heads=2, context=16), batch=2, looked_at=4, steps=64)
    return perceptron(widths=(16,), batch=8, looked_at=32, steps=64, together=2)


@functools.cache
def full(name: str, path: Path | None = None) -> Task:
    """A task as it is measured."""
    return gpt(path) if name == "gpt" else perceptron()


TASKS = ("gpt", "perceptron")

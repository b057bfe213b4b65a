"""A small GPT on the bytes of a text: python -m examples.gpt_muon [PATH]

Muon for its matrices, AdamW for the rest, decay where it does not work against the step, a rate that falls at the end,
an average of the parameters to evaluate with.
"""

import sys
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import gradtx
from gradtx import labels

WIDTH, HEADS, CONTEXT, LAYERS = 96, 4, 64, 3


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, rngs):
        linear = lambda inputs, outputs: nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)
        self.norm1, self.norm2 = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.RMSNorm(WIDTH, rngs=rngs)
        self.query, self.key, self.value, self.out = (linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = linear(WIDTH, 4 * WIDTH), linear(4 * WIDTH, WIDTH)

    def __call__(self, x):
        y = self.norm1(x)
        q, k, v = (layer(y).reshape(*x.shape[:2], HEADS, -1) for layer in (self.query, self.key, self.value))
        x = x + self.out(jax.nn.dot_product_attention(q, k, v, is_causal=True).reshape(x.shape))
        return x + self.down(nnx.gelu(self.up(self.norm2(x))))


class GPT(nnx.Module):
    """Bytes in, logits of the next byte out."""

    def __init__(self, rngs):
        self.embedding, self.position = nnx.Embed(256, WIDTH, rngs=rngs), nnx.Embed(CONTEXT, WIDTH, rngs=rngs)
        self.blocks = nnx.List([Block(rngs) for _ in range(LAYERS)])
        self.norm, self.head = nnx.RMSNorm(WIDTH, rngs=rngs), nnx.Linear(WIDTH, 256, use_bias=False, rngs=rngs)

    def __call__(self, tokens):
        x = self.embedding(tokens) + self.position(jnp.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def train(text, steps):
    """The loss of each step, in nats per byte."""
    model, rng, losses = GPT(nnx.Rngs(0)), np.random.default_rng(0), []
    groups = labels.groups({"Muon": labels.role("matrix"), "AdamW": labels.role("embedding", "head", "norm")})
    print(labels.table(groups, nnx.state(model, nnx.Param)))
    rate = lambda peak: gradtx.warmup_stable_decay_schedule(0.0, peak, steps // 10, steps)
    muon = gradtx.chain(gradtx.muon(rate(0.02)), gradtx.decay_weights(0.1, rate(0.02), cautious=True))
    adamw = gradtx.adamw(rate(3e-3), weight_decay=0.1, cautious_decay=True)
    tx: Any = gradtx.monitor(
        gradtx.average_params(gradtx.partition({"Muon": muon, "AdamW": adamw}, groups), 0.95, warmup=1)
    )
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)

    def loss(model, tokens):
        return gradtx.losses.softmax_cross_entropy_with_integer_labels(model(tokens[:, :-1]), tokens[:, 1:]).mean()

    @nnx.jit
    def step(model, optimizer, tokens):
        value, grads = nnx.value_and_grad(loss)(model, tokens)
        optimizer.update(model, grads)
        return value

    def batch(size):
        places = rng.integers(len(text) - CONTEXT, size=(size, 1)) + np.arange(CONTEXT + 1)
        return text[places].astype(np.int32)

    evaluated, evaluate = batch(64), nnx.jit(loss)
    for i in range(steps):
        losses.append(float(step(model, optimizer, batch(16))))
        if i % max(1, steps // 10) == 0 or i == steps - 1:
            seen = gradtx.metrics(optimizer.opt_state)
            rate_now, size = float(seen["learning_rate/blocks/0/up/kernel"]), float(seen["gradient_norm"])
            structure, params = nnx.split(model)
            averaged = nnx.merge(structure, gradtx.eval_params(tx, optimizer.opt_state, params))
            of_each = (
                f"{float(evaluate(model, evaluated)):.3f}, of the average {float(evaluate(averaged, evaluated)):.3f}"
            )
            print(f"step {i:4}  loss {of_each}  |gradient| {size:.2f}  rate of Muon {rate_now:.4f}")
    return losses


if __name__ == "__main__":
    read = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else "\n".join(topics.values()).encode()
    train(np.frombuffer(read, np.uint8), steps=200)

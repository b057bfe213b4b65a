"""A small GPT on the bytes of a text: Muon for its matrices, AdamW for the rest. python -m examples.gpt_muon [PATH]"""

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
    rate = lambda peak: gradtx.warmup_cosine_decay_schedule(0.0, peak, steps // 10, steps, peak / 10)
    tx = gradtx.partition({"Muon": gradtx.muon(rate(0.02)), "AdamW": gradtx.adamw(rate(3e-3))}, groups)
    watched: Any = gradtx.monitor(tx)
    optimizer = nnx.Optimizer(model, watched, wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer, tokens):
        loss = gradtx.losses.softmax_cross_entropy_with_integer_labels
        value, grads = nnx.value_and_grad(lambda model: loss(model(tokens[:, :-1]), tokens[:, 1:]).mean())(model)
        optimizer.update(model, grads)
        return value

    for i in range(steps):
        places = rng.integers(len(text) - CONTEXT, size=(16, 1)) + np.arange(CONTEXT + 1)
        losses.append(float(step(model, optimizer, text[places].astype(np.int32))))
        if i % max(1, steps // 10) == 0 or i == steps - 1:
            seen = gradtx.metrics(optimizer.opt_state)
            rate_now, size = float(seen["learning_rate/blocks/0/up/kernel"]), float(seen["gradient_norm"])
            print(f"step {i:4}  loss {losses[-1]:.3f}  |gradient| {size:.2f}  rate of Muon {rate_now:.4f}")
    return losses


if __name__ == "__main__":
    read = Path(sys.argv[1]).read_bytes() if len(sys.argv) > 1 else "\n".join(topics.values()).encode()
    train(np.frombuffer(read, np.uint8), steps=200)

"""A GPT in Flax NNX: embeddings, pre-norm blocks of causal attention and a feed-forward part, and a head. No biases."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec

VOCABULARY = 256  # bytes
SLOWEST = 100.0  # positions per radian of the pair of channels that turns the least


@dataclass(frozen=True)
class Sizes:
    """What makes one GPT larger than another.

    Attributes:
      layers: number of blocks.
      width: of the residual stream; a multiple of `heads`.
      heads: of the attention.
      context: the largest number of bytes that are seen at once.
    """

    layers: int
    width: int
    heads: int
    context: int


class Attention(nnx.Module):
    """Causal attention: each position reads those before it; with `rotary`, by how far before it they are."""

    def __init__(self, sizes: Sizes, *, rotary: bool = False, rngs: nnx.Rngs):
        width = sizes.width
        self.heads, self.rotary = sizes.heads, rotary
        self.query, self.key, self.value = (linear(width, width, rngs) for _ in range(3))
        self.out = linear(width, width, rngs)

    def __call__(self, x: Array) -> Array:
        split = lambda x: x.reshape(*x.shape[:2], self.heads, -1)  # batch, position, head, channel
        query, key, value = split(self.query(x)), split(self.key(x)), split(self.value(x))
        if self.rotary:
            query, key = turned(query), turned(key)
        y = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        return self.out(y.reshape(x.shape))


def turned(x: Array) -> Array:
    """Each pair of channels of `x` `[batch, position, head, channel]` turned by an angle that grows with the position.

    Products of queries and keys then depend on distances alone (Su et al., RoFormer, 2021, arXiv:2104.09864).
    """
    pairs = x.shape[-1] // 2
    angles = jnp.arange(x.shape[1])[:, None, None] * SLOWEST ** -(jnp.arange(pairs) / pairs)
    cosine, sine = jnp.cos(angles), jnp.sin(angles)
    a, b = jnp.split(x, 2, axis=-1)
    return jnp.concatenate([a * cosine - b * sine, a * sine + b * cosine], axis=-1)


class FeedForward(nnx.Module):
    """Two layers, the inner one four times as wide, with GELU between them."""

    def __init__(self, sizes: Sizes, *, rngs: nnx.Rngs):
        self.up, self.down = linear(sizes.width, 4 * sizes.width, rngs), linear(4 * sizes.width, sizes.width, rngs)

    def __call__(self, x: Array) -> Array:
        return self.down(nnx.gelu(self.up(x)))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, sizes: Sizes, *, rotary: bool = False, rngs: nnx.Rngs):
        self.norm1, self.attention = nnx.RMSNorm(sizes.width, rngs=rngs), Attention(sizes, rotary=rotary, rngs=rngs)
        self.norm2, self.feed_forward = nnx.RMSNorm(sizes.width, rngs=rngs), FeedForward(sizes, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        x = x + self.attention(self.norm1(x))
        return x + self.feed_forward(self.norm2(x))


class GPT(nnx.Module):
    """The network: bytes in, logits of the next byte out.

    Args:
      sizes: how large.
      rotary: positions are told by turning queries and keys, and not by a table that is learned.
      batch: where activations lie, `[batch, position, channel]`; None: wherever the compiler puts them.
      rngs: random keys.
    """

    def __init__(self, sizes: Sizes, *, rotary: bool = False, batch: NamedSharding | None = None, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(0.02)
        self.batch = batch
        self.embedding = nnx.Embed(VOCABULARY, sizes.width, embedding_init=normal, rngs=rngs)
        self.position = None if rotary else nnx.Embed(sizes.context, sizes.width, embedding_init=normal, rngs=rngs)
        self.blocks = nnx.List([Block(sizes, rotary=rotary, rngs=rngs) for _ in range(sizes.layers)])
        self.norm = nnx.RMSNorm(sizes.width, rngs=rngs)
        self.head = nnx.Linear(sizes.width, VOCABULARY, use_bias=False, kernel_init=normal, rngs=rngs)

    def __call__(self, tokens: Array) -> Array:
        """Logits `[batch, position, byte]` for `tokens`, whole numbers `[batch, position]`."""
        x = self._whole(self.embedding)[tokens]
        if self.position is not None:
            x = x + self._whole(self.position)[: tokens.shape[1]]
        x = self._placed(x)
        for block in self.blocks:
            x = self._placed(block(x))
        return self.head(self.norm(x))

    def _placed(self, x: Array) -> Array:
        # Else the compiler may divide channels as the weights are, and gather activations in place of weights.
        return x if self.batch is None else jax.lax.with_sharding_constraint(x, self.batch)

    def _whole(self, table: nnx.Embed) -> Array:
        # Rows that are divided by channels would come with all of the batch, which then moves; the table is smaller.
        x = table.embedding[...]
        everywhere = self.batch and NamedSharding(self.batch.mesh, PartitionSpec())
        return x if everywhere is None else jax.lax.with_sharding_constraint(x, everywhere)


def linear(inputs: int, outputs: int, rngs: nnx.Rngs) -> nnx.Linear:
    """A matrix, with entries of variance 1 / inputs."""
    return nnx.Linear(inputs, outputs, use_bias=False, rngs=rngs)

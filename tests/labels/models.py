"""Parameters of real models, of shapes alone: Flax NNX and Linen, Equinox, Haiku's names, a stack of layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx
from flax.core import freeze

from gradtx import paths

KEY = jax.random.key(0)


class NnxBlock(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, rngs=rngs, decode=False)
        self.mlp = nnx.Linear(4, 4, rngs=rngs)


class NnxModel(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(10, 4, rngs=rngs)
        self.patches = nnx.Conv(4, 4, (3,), rngs=rngs)
        self.conv = nnx.Conv(4, 4, (3,), rngs=rngs)
        self.blocks = nnx.List([NnxBlock(rngs) for _ in range(3)])
        self.batch = nnx.BatchNorm(4, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.head = nnx.Linear(4, 10, rngs=rngs)


class LinenModel(linen.Module):
    @linen.compact
    def __call__(self, tokens):
        x = linen.Embed(10, 4)(tokens)
        for i in range(3):
            y = linen.RMSNorm(name=f"norm_{i}")(x)
            x = x + linen.Dense(4, name=f"layer_{i}")(linen.MultiHeadDotProductAttention(2, name=f"attn_{i}")(y, y))
        x = linen.Conv(4, (3, 3))(x[..., None])
        return linen.Dense(10, name="lm_head")(x)


class EquinoxModel(eqx.Module):
    wte: eqx.nn.Embedding
    layers: list
    norm: eqx.nn.LayerNorm
    net: eqx.nn.Sequential
    head: eqx.nn.Linear


def nnx_params():
    return nnx.state(nnx.eval_shape(lambda: NnxModel(nnx.Rngs(0))), nnx.Param)


def linen_params():
    return jax.eval_shape(LinenModel().init, KEY, jnp.zeros((2, 5), jnp.int32))


def equinox_params():
    model = eqx.filter_eval_shape(
        lambda: EquinoxModel(
            eqx.nn.Embedding(10, 4, key=KEY),
            [eqx.nn.MultiheadAttention(2, 4, key=KEY) for _ in range(3)],
            eqx.nn.LayerNorm(4),
            eqx.nn.Sequential(
                [eqx.nn.Conv1d(4, 4, 3, key=KEY), eqx.nn.Lambda(jax.nn.relu), eqx.nn.GRUCell(4, 4, key=KEY)]
            ),
            eqx.nn.Linear(4, 10, key=KEY),
        )
    )
    return eqx.filter(model, lambda x: hasattr(x, "shape"))  # without functions, and the dropouts' rates


def haiku_params():
    shape = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    linear = lambda: {"w": shape(4, 4), "b": shape(4)}
    return {
        "net/~/embed": {"embeddings": shape(10, 4)},
        "net/block_0/~/layer_norm": {"scale": shape(4), "offset": shape(4)},
        "net/block_0/mlp/~/linear_0": linear(),
        "net/block_1/~/layer_norm": {"scale": shape(4), "offset": shape(4)},
        "net/block_1/mlp/~/linear_0": linear(),
        "net/~/conv2_d": {"w": shape(3, 3, 4, 4), "b": shape(4)},
        "net/~/logits": {"w": shape(4, 10), "b": shape(10)},
    }


def stacked_params():
    """A stack of three layers in one leaf each, as `nnx.vmap`, `linen.scan` and `eqx.filter_vmap` make it."""
    shape = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
    block = {
        "norm": {"scale": shape(3, 4)},
        "attn": {"q": {"kernel": shape(3, 4, 2, 2)}},
        "up": {"kernel": shape(3, 4, 8)},
    }
    return {"embed": {"embedding": shape(10, 4)}, "layers": block, "head": {"kernel": shape(4, 10), "bias": shape(10)}}


MODELS = {
    "nnx": nnx_params,
    "linen": linen_params,
    "equinox": equinox_params,
    "haiku": haiku_params,
    "stacked": stacked_params,
}

CONTAINERS = pytest.mark.parametrize(
    "params",
    [make() for make in MODELS.values()] + [freeze(linen_params())],
    ids=["nnx.State", "dict of Linen", "Equinox", "dict of Haiku", "stacked", "FrozenDict"],
)


def ones(shapes):
    return jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)


def named(tree):
    return dict(zip(paths.names(tree), jax.tree.leaves(tree), strict=True))

"""Adam-mini's blocks by the names of real models."""

import jax
import jax.numpy as jnp
import pytest

import gradtx
from gradtx import AdamMiniBlocks as Blocks
from gradtx import labels

from .models import CONTAINERS, MODELS, equinox_params, linen_params, named, nnx_params, ones, stacked_params

FOUND = {
    "nnx": {
        "embed/embedding": Blocks(0),
        "blocks/0/attention/query/kernel": Blocks(1),
        "blocks/0/attention/key/bias": Blocks(),
        "blocks/0/attention/value/kernel": Blocks((1, 2)),
        "blocks/0/attention/out/kernel": Blocks(2),
        "blocks/0/mlp/kernel": Blocks(1),
        "conv/kernel": Blocks(2),
        "batch/scale": Blocks(),
        "head/kernel": Blocks(1),
    },
    "linen": {"params/Embed_0/embedding": Blocks(0), "params/attn_0/key/kernel": Blocks(1)},
    "equinox": {
        "wte/weight": Blocks(0),
        "layers/0/query_proj/weight": Blocks(parts={0: 2}),
        "layers/0/key_proj/weight": Blocks(parts={0: 1}),
        "layers/0/value_proj/weight": Blocks(0),
        "net/layers/0/weight": Blocks(0),
        "head/weight": Blocks(0),
        "head/bias": Blocks(),
    },
    "haiku": {"net/~/embed/embeddings": Blocks(0), "net/~/logits/w": Blocks(1)},
    "stacked": {
        "layers/attn/q/kernel": Blocks((0, 2)),
        "layers/up/kernel": Blocks((0, 2)),
        "layers/norm/scale": Blocks(0),
        "head/kernel": Blocks(1),
    },
}


@pytest.mark.parametrize("model", FOUND)
def test_blocks_are_found_by_names_and_shapes(model):
    found = named(labels.adam_mini_blocks(2, kv_heads=1)(MODELS[model]()))
    assert {name: found[name] for name in FOUND[model]} == FOUND[model]


def test_without_a_number_of_heads_outputs_are_blocks():
    assert named(labels.adam_mini_blocks()(equinox_params()))["layers/0/query_proj/weight"] == Blocks(0)
    assert named(labels.adam_mini_blocks(2)(equinox_params()))["layers/0/key_proj/weight"] == Blocks(parts={0: 2})


@CONTAINERS
def test_adam_mini_takes_them_in_any_container(params):
    tx = gradtx.adam_mini(0.1, blocks=labels.adam_mini_blocks(2))
    nu = jax.eval_shape(tx.init, params)["scale_by_adam_mini"].nu
    assert sum(x.size for x in jax.tree.leaves(nu)) < sum(x.size for x in jax.tree.leaves(params)) / 2


def test_they_step_and_print():
    params, blocks = ones(stacked_params()), labels.adam_mini_blocks(2)
    tx = gradtx.scale_by_adam_mini(blocks=blocks)
    updates, _ = tx.update(params, tx.init(params))
    # ones: the mean over its root mean square is 1
    jax.tree.map(lambda u: jnp.allclose(u, 1) or pytest.fail(str(u)), updates)
    assert hash(tx) == hash(gradtx.scale_by_adam_mini(blocks=labels.adam_mini_blocks(2)))
    table = labels.table(blocks, nnx_params())
    assert "blocks/*/attention/query/kernel" in table and "AdamMiniBlocks(1)" in table
    assert labels.table(blocks, linen_params())

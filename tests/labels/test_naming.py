"""Roles, by the names and shapes that real models have."""

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest

from gradtx import labels
from gradtx.labels import role

from .models import KEY, MODELS, equinox_params, haiku_params, linen_params, named, nnx_params, stacked_params

EXPECTED_ROLES = {
    "nnx": {
        "embed/embedding": "embedding",
        "conv/kernel": "conv",
        "conv/bias": "bias",
        "blocks/0/norm/scale": "norm",
        "blocks/0/norm/bias": "norm",
        "blocks/1/attention/query/kernel": "matrix",
        "blocks/1/attention/query/bias": "bias",
        "blocks/1/attention/out/kernel": "matrix",
        "blocks/2/mlp/kernel": "matrix",
        "batch/scale": "norm",
        "batch/bias": "norm",
        "head/kernel": "head",
        "head/bias": "bias",
    },
    "linen": {
        "params/Embed_0/embedding": "embedding",
        "params/norm_0/scale": "norm",
        "params/attn_2/key/kernel": "matrix",
        "params/layer_1/bias": "bias",
        "params/Conv_0/kernel": "conv",
        "params/lm_head/kernel": "head",
    },
    "equinox": {
        "wte/weight": "embedding",
        "layers/0/query_proj/weight": "matrix",
        "norm/weight": "norm",
        "norm/bias": "norm",
        "net/layers/0/weight": "conv",
        "net/layers/0/bias": "bias",
        "net/layers/2/weight_hh": "matrix",
        "net/layers/2/bias_n": "bias",
        "head/weight": "head",
    },
    "haiku": {
        "net/~/embed/embeddings": "embedding",
        "net/block_1/~/layer_norm/offset": "norm",
        "net/block_1/mlp/~/linear_0/w": "matrix",
        "net/block_1/mlp/~/linear_0/b": "bias",
        "net/~/conv2_d/w": "conv",
        "net/~/logits/w": "head",
    },
    "stacked": {
        "layers/norm/scale": "norm",
        "layers/attn/q/kernel": "matrix",
        "layers/up/kernel": "matrix",
        "embed/embedding": "embedding",
        "head/kernel": "head",
    },
}


@pytest.mark.parametrize("model", MODELS)
def test_roles_follow_the_conventions_of_the_libraries(model):
    found = named(labels.roles(MODELS[model]()))
    assert EXPECTED_ROLES[model].items() <= found.items()
    assert "other" not in found.values()


@pytest.mark.parametrize(
    ("words", "shape", "expected"),
    [
        ("token_mixing/Dense_0/kernel", (4, 4), "matrix"),
        ("multi_head/kernel", (4, 4), "matrix"),
        ("encoder/layer/0/output/dense/kernel", (4, 4), "matrix"),
        ("output/kernel", (4, 4), "head"),
        ("convnext_block/dense/kernel", (4, 4), "matrix"),
        ("decoder/unembedding/kernel", (4, 4), "head"),
        ("cls_token", (1, 1, 4), "embedding"),
        ("embeddings/LayerNorm/scale", (4,), "norm"),
        ("relpos_bias/rel_embedding", (2, 8), "embedding"),
        ("features/3/weight", (4,), "norm"),
        ("features/2/weight", (4, 4, 3, 3), "conv"),
        ("kv_einsum/w", (2, 4, 4, 4), "matrix"),
        ("logit_scale", (), "other"),
        ("lora_a", (4, 2), "matrix"),
    ],
)
def test_names_decide_before_shapes(words, shape, expected):
    tree = jax.ShapeDtypeStruct(shape, jnp.float32)
    for word in reversed(words.split("/")):
        tree = {word: tree}
    assert jax.tree.leaves(labels.roles(tree)) == [expected]


def test_a_stack_is_found_and_nothing_else_is():
    stacked = lambda params: {
        x for x, label in named(labels.groups([(1, role("stacked")), (0, ...)])(params)).items() if label
    }
    assert stacked(stacked_params()) == {"layers/norm/scale", "layers/attn/q/kernel", "layers/up/kernel"}
    for make in (nnx_params, linen_params, equinox_params, haiku_params):
        with pytest.raises(ValueError, match=r"role\('stacked'\) of 1 decides no parameter"):
            stacked(make())
    real = eqx.filter_vmap(lambda key: eqx.nn.MLP(4, 4, 8, 2, key=key))(jax.random.split(KEY, 3))
    assert len(stacked(real)) == 6
    images = {"norm": {"weight": jnp.ones((3, 8, 8)), "bias": jnp.ones((3, 8, 8))}}  # one normalization, of an image
    with pytest.raises(ValueError, match="stacked"):
        stacked(images)

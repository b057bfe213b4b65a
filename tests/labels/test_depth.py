"""Layers counted from the head, and learning rates that fall with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import labels

from .models import CONTAINERS, MODELS, named, ones

EXPECTED_DEPTHS = {
    "nnx": {"embed/embedding": 4, "conv/kernel": 0, "blocks/0/mlp/bias": 3, "blocks/2/norm/scale": 1, "head/kernel": 0},
    "linen": {
        "params/Embed_0/embedding": 4,
        "params/attn_0/out/bias": 3,
        "params/layer_2/kernel": 1,
        "params/lm_head/bias": 0,
    },
    "equinox": {"wte/weight": 4, "layers/0/key_proj/weight": 3, "norm/weight": 0, "head/bias": 0},
    "haiku": {
        "net/~/embed/embeddings": 3,
        "net/block_0/mlp/~/linear_0/w": 2,
        "net/block_1/~/layer_norm/scale": 1,
        "net/~/logits/b": 0,
    },
    "stacked": {"embed/embedding": 4, "layers/up/kernel": range(3, 0, -1), "head/bias": 0},
}


@pytest.mark.parametrize("model", MODELS)
def test_depths_count_from_the_head(model):
    assert EXPECTED_DEPTHS[model].items() <= named(labels.depths(MODELS[model]())).items()


def test_a_pattern_finds_the_numbers_where_names_do_not():
    params = {"stage1of2": {"w": jnp.ones(2)}, "stage2of2": {"w": jnp.ones(2)}, "embed": {"w": jnp.ones(2)}}
    assert named(labels.depths(params, r"stage(\d)")) == {"stage1of2/w": 2, "stage2of2/w": 1, "embed/w": 3}


@CONTAINERS
def test_each_layer_is_scaled_by_its_depth(params):
    values = ones(params)
    tx = gradtx.chain(gradtx.sgd(1.0), gradtx.layerwise_decay(0.5))
    updates, _ = jax.jit(tx.update)(values, tx.init(values), values)
    for name, depth in named(labels.depths(params)).items():
        factor = np.array([0.5**d for d in depth]) if isinstance(depth, range) else np.full(1, 0.5**depth)
        u = np.asarray(named(updates)[name])
        np.testing.assert_array_equal(
            u, np.broadcast_to(-factor.reshape(-1, *[1] * (u.ndim - 1)), u.shape)
        )  # powers of 2


def test_a_stack_learns_as_its_layers_do():
    layers = [{"w": jnp.full((4, 4), i + 1.0), "b": jnp.full(4, i + 1.0)} for i in range(3)]
    stack = jax.tree.map(lambda *xs: jnp.stack(xs), *layers)
    tx = gradtx.layerwise_decay(gradtx.linear_schedule(0.9, 0.3, 2))
    apart, together = {"blocks": layers}, {"blocks": stack}
    states = tx.init(apart), tx.init(together)
    for _ in range(3):
        (one, first), (other, second) = (tx.update(g, s, g) for g, s in zip((apart, together), states, strict=True))
        states = first, second
        stacked = jax.tree.map(lambda *xs: jnp.stack(xs), *one["blocks"])
        # float32 powers by an integer and by an array: a rounding each
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), stacked, other["blocks"])


def test_decay_and_multipliers_come_on_top_of_groups():
    """The rate of a parameter is that of its group, times its layer's factor, times its multiplier."""
    params = ones(MODELS["nnx"]())
    groups = labels.groups({"head": "^head/", "rest": ...})
    tx = gradtx.chain(
        gradtx.partition({"head": gradtx.sgd(1.0), "rest": gradtx.sgd(0.5)}, groups),
        gradtx.layerwise_decay(0.25),
        gradtx.scale_by_group({"norm": 2.0, "other": 1.0}, labels.groups({"norm": labels.role("norm"), "other": ...})),
    )
    updates, _ = tx.update(params, tx.init(params), params)
    for name, u in named(updates).items():
        rate = (1.0 if name.startswith("head") else 0.5) * 0.25 ** named(labels.depths(params))[name]
        factor = 2.0 if "norm" in name or name.startswith("batch") else 1.0
        np.testing.assert_array_equal(u, np.full(u.shape, -rate * factor))  # powers of 2

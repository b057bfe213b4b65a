"""qk_clip: Kimi K2, 2025, Algorithm 1 (arXiv 2507.20534)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import gradtx

RNG = np.random.default_rng(0)


def draw(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def clipped(tx, params, logits, step=0.1):
    """The parameters after a step of `step` times themselves, and what they would be without a clip."""
    updates = jax.tree.map(lambda p: step * p, params)
    updates, _ = tx.update(updates, tx.init(params), params, max_logits=logits)
    without = jax.tree.map(lambda p: p + step * p, params)
    return jax.tree.map(np.asarray, (gradtx.apply_updates(params, updates), without))


def heads(inputs=6, queries=4, keys=4, channels=2):
    return {
        "query": {"kernel": draw(inputs, queries, channels), "bias": draw(queries, channels)},
        "key": {"kernel": draw(inputs, keys, channels), "bias": draw(keys, channels)},
        "value": {"kernel": draw(inputs, keys, channels)},
        "out": {"kernel": draw(queries, channels, inputs)},
    }


def scores(attention, x, fused_heads=0):
    """The logits of each head for inputs x: [head, position, position]."""
    project = lambda part: np.einsum("td,dhc->htc", x, part["kernel"]) + np.asarray(part["bias"])[:, None]
    q, k = project(attention["query"]), project(attention["key"])
    return np.einsum("htc,hsc->hts", q, np.repeat(k, len(q) // len(k), axis=0))


@pytest.mark.parametrize("keys", [4, 2, 1])
def test_no_logit_of_the_new_weights_is_above_the_bound(keys):
    """For the inputs that they were measured with, at steps of length 0; with grouped queries, too."""
    params, x = {"block": {"attention": heads(keys=keys)}}, RNG.normal(size=(5, 6))
    largest = scores(params["block"]["attention"], x).max(axis=(1, 2))
    tau = float(np.sort(largest)[1])  # of four heads two are above
    new, _ = clipped(gradtx.qk_clip(tau), params, {"block": {"attention": jnp.asarray(largest)}}, step=0.0)
    now = scores(new["block"]["attention"], x).max(axis=(1, 2))
    assert np.all(now <= tau * (1 + 1e-5))
    if keys == 4:
        np.testing.assert_allclose(now, np.minimum(largest, tau), rtol=1e-5)


@pytest.mark.parametrize("balance", [0.5, 0.25, 0.0, 1.0])
def test_queries_and_keys_share_the_factor(balance):
    params, largest = {"a": heads(), "b": heads()}, np.array([50.0, 200.0, -3.0, 1e4])
    logits = {"a": jnp.asarray(largest, jnp.float32), "b": jnp.full(4, 100.0)}
    new, without = clipped(gradtx.qk_clip(balance=balance), params, logits)
    g = np.array([1, 0.5, 1, 0.01])[:, None]
    for name, factor in (("query", g**balance), ("key", g ** (1 - balance)), ("value", 1)):
        for leaf in new["a"][name]:
            np.testing.assert_allclose(new["a"][name][leaf], without["a"][name][leaf] * factor, rtol=1e-5)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), new["b"], without["b"])
    np.testing.assert_array_equal(new["a"]["query"]["kernel"][:, 0], without["a"]["query"]["kernel"][:, 0])


def test_a_shared_key_follows_its_loudest_query_and_queries_themselves():
    params, largest = heads(keys=2), jnp.array([100.0, 400.0, 10.0, 20.0])
    new, without = clipped(gradtx.qk_clip(100), params, largest)  # the only attention: its path need not be told
    ratio = lambda name: (new[name]["kernel"] / without[name]["kernel"])[0, :, 0]
    np.testing.assert_allclose(ratio("query"), [1, 0.5, 1, 1], rtol=1e-5)
    np.testing.assert_allclose(ratio("key"), [0.5, 1], rtol=1e-5)


def test_heads_may_share_the_last_axis_with_their_channels():
    params = heads(keys=2)
    flat = jax.tree.map(lambda x: x, params)
    for name in ("query", "key"):
        flat[name] = {"kernel": params[name]["kernel"].reshape(6, -1), "bias": params[name]["bias"].reshape(-1)}
    logits = jnp.array([100.0, 400.0, 10.0, 20.0])
    apart, _ = clipped(gradtx.qk_clip(), params, logits)
    fused, _ = clipped(gradtx.qk_clip(fused=True), flat, logits)
    for name in ("query", "key"):
        for leaf in ("kernel", "bias"):
            np.testing.assert_array_equal(fused[name][leaf], apart[name][leaf].reshape(fused[name][leaf].shape))


@pytest.mark.parametrize("fused", [False, True])
def test_layers_in_a_stack_are_as_each_alone(fused):
    layers, tx = [heads(keys=2) for _ in range(3)], gradtx.qk_clip(fused=fused)
    if fused:
        flatten = lambda x: x.reshape(*x.shape[:-2], -1)
        layers = [
            {name: {k: flatten(v) for k, v in x.items()} if name != "out" else x for name, x in layer.items()}
            for layer in layers
        ]
    logits = jnp.asarray(RNG.uniform(50, 400, (3, 4)), jnp.float32)
    stack = jax.tree.map(lambda *xs: jnp.stack(xs), *layers)
    together, _ = clipped(tx, {"blocks": {"attention": stack}}, {"blocks": {"attention": logits}})
    for i, layer in enumerate(layers):
        alone, _ = clipped(tx, layer, logits[i])
        got = jax.tree.map(lambda x, i=i: x[i], together["blocks"]["attention"])
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6), got, alone)


def test_latent_attention_scales_rotated_queries_whole_and_neither_values_nor_the_shared_key():
    """As in DeepSeek's: a query's leaf holds 3 plain channels and 2 rotated ones, a key's 3 and 4 values."""
    params = {
        "wq_b": {"kernel": draw(5, 2, 3 + 2)},
        "wkv_b": {"kernel": draw(7, 2, 3 + 4)},
        "wkv_a": {"kernel": draw(6, 7 + 2)},
    }
    new, without = clipped(gradtx.qk_clip(nope=3), params, jnp.array([400.0, 10.0]))
    ratio = {name: new[name]["kernel"] / without[name]["kernel"] for name in params}
    np.testing.assert_allclose(ratio["wq_b"][:, 0], [[0.5, 0.5, 0.5, 0.25, 0.25]] * 5, rtol=1e-5)
    np.testing.assert_allclose(ratio["wkv_b"][:, 0], [[0.5, 0.5, 0.5, 1, 1, 1, 1]] * 7, rtol=1e-5)
    for x in (ratio["wq_b"][:, 1], ratio["wkv_b"][:, 1], ratio["wkv_a"]):
        np.testing.assert_allclose(x, 1, rtol=1e-5)


def test_rotated_queries_may_have_a_leaf_of_their_own():
    params = {"q": {"kernel": draw(5, 2, 3)}, "k": {"kernel": draw(5, 2, 3)}, "q_rope": {"kernel": draw(5, 2, 2)}}
    tx = gradtx.qk_clip(query_rope="q_rope/kernel$")
    new, without = clipped(tx, params, jnp.array([10.0, 400.0]))
    for name, factor in (("q", 0.5), ("k", 0.5), ("q_rope", 0.25)):
        np.testing.assert_allclose(new[name]["kernel"][:, 1], factor * without[name]["kernel"][:, 1], rtol=1e-5)
        np.testing.assert_allclose(new[name]["kernel"][:, 0], without[name]["kernel"][:, 0], rtol=1e-6)


@pytest.mark.parametrize("unknown", [jnp.nan, jnp.inf, -jnp.inf, 0.0])
def test_a_logit_that_is_no_number_clips_nothing(unknown):
    new, without = clipped(gradtx.qk_clip(), heads(), jnp.array([unknown, 400.0, 1.0, 1.0]))
    np.testing.assert_array_equal(new["query"]["kernel"][:, 0], without["query"]["kernel"][:, 0])
    np.testing.assert_allclose(new["query"]["kernel"][:, 1], without["query"]["kernel"][:, 1] / 2, rtol=1e-5)


def test_flaxs_attention_is_known_by_its_paths_and_logits_by_what_it_sows():
    model = nnx.Dict(attention=nnx.MultiHeadAttention(2, 6, rngs=nnx.Rngs(0), decode=False))
    params = nnx.state(model, nnx.Param)
    tx = gradtx.chain(gradtx.sgd(0.0), gradtx.qk_clip())
    zeros = jax.tree.map(jnp.zeros_like, params)
    for logits in (
        {"attention": {"max_logits": (jnp.array([400.0, 1.0]),)}},
        {"attention/max_logits": jnp.array([400.0, 1.0])},
        {"intermediates": {"attention": jnp.array([400, 1])}},
    ):
        updates, _ = tx.update(zeros, tx.init(params), params, max_logits=logits)
        new = gradtx.apply_updates(params, updates)
        for name in ("query", "key"):
            before, after = (x["attention"][name]["kernel"][...] for x in (params, new))
            np.testing.assert_allclose(after[:, 0], before[:, 0] / 2, rtol=1e-5)
            np.testing.assert_array_equal(after[:, 1], before[:, 1])


@pytest.mark.parametrize(
    ("options", "params", "logits", "message"),
    [
        ({}, heads(), None, r"`qk_clip` reads the largest logit of each head: .*max_logits="),
        (
            {},
            {"dense": {"kernel": draw(2, 3)}},
            jnp.ones(2),
            r"the pattern of query.*none of the paths \['dense/kernel'\]",
        ),
        ({}, {"a": heads(), "b": {"key": heads()["key"]}}, {"a": jnp.ones(4)}, r"attention 'b' has .*and no query"),
        ({}, {"a": heads(), "b": heads()}, {"a": jnp.ones(4)}, r"nothing for the attention 'b'"),
        ({}, {"a": heads(), "b": heads()}, jnp.ones(4), r"max_logits\[''\] is of no attention; there are \['a', 'b'\]"),
        ({}, {"a": heads()}, {"a": jnp.ones(4), "c": jnp.ones(4)}, r"max_logits\['c'\] is of no attention"),
        ({}, {"a": heads()}, {"a": {"x": jnp.ones(4), "y": jnp.ones(4)}}, r"max_logits\['a/y'\] is the second of"),
        ({}, {"a": heads()}, {"a": jnp.float32(3)}, r"max_logits of 'a' is one number"),
        ({}, heads(), jnp.ones(3), r"'key/bias' of shape \(4, 2\) cannot have the 3 heads"),
        ({}, heads(inputs=5), jnp.ones((5, 4)), r"'key/bias' has the shape \(4, 2\).*maximum over the batch"),
        ({"query": "e"}, heads(), jnp.ones(4), r"'key/bias' matches the patterns of query and key"),
        ({"nope": -1}, heads(), jnp.ones(4), r"nope must be a number of channels"),
        ({"key": "("}, heads(), jnp.ones(4), r"key must be a regular expression"),
    ],
)
def test_an_error_names_the_leaf_or_the_argument(options, params, logits, message):
    with pytest.raises(ValueError, match=message):
        clipped(gradtx.qk_clip(**options), params, logits)


def test_batched_logits_are_an_error_also_where_the_shapes_would_fit():
    """A kernel (8, 4, 2) is no stack of 8 biases."""
    params = heads(inputs=8)
    del params["query"]["bias"], params["key"]["bias"]
    with pytest.raises(ValueError, match=r"'key/kernel' has the shape \(8, 4, 2\)"):
        clipped(gradtx.qk_clip(), params, jnp.ones((8, 4)))

"""Paths of leaves, and errors that name one."""

from collections import OrderedDict
from typing import NamedTuple

import equinox as eqx
import flax.linen as nn
import jax.numpy as jnp
import pytest
from flax import nnx

from gradtx import paths


class Pair(NamedTuple):
    left: object
    right: object


def test_paths_are_the_same_for_every_container():
    leaf = jnp.ones(2)
    assert paths.names({"a": [leaf, {"b": leaf}], "c": Pair(leaf, None)}) == ["a/0", "a/1/b", "c/left"]
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    assert paths.names(state) == paths.names(nnx.as_pure(state)) == ["bias", "kernel"]


class Heads(eqx.Module):
    policy: object
    value: object


def test_no_two_leaves_have_one_name():
    tree = {"net": {"a/b": 1, "c": 2}, "net/a": {"b": 3}}
    assert paths.names(tree) == ['["net"]["a/b"]', "net/c", '["net/a"]["b"]']
    assert paths.all_keys(tree) == [("net", "a/b"), ("net", "c"), ("net/a", "b")]


def test_only_flaxs_wrappers_lose_their_field():
    boxed = {"value": nn.Partitioned(jnp.ones(2), ("x",)), "heads": Heads(nnx.Param(jnp.ones(2)), {"value": 1.0})}
    assert paths.names(boxed) == ["heads/policy", "heads/value/value", "value"]
    assert paths.names(nnx.Param(jnp.ones(2))) == [""]
    assert paths.names(Heads(1, [2, Heads(3, 4)])) == ["policy", "value/0", "value/1/policy", "value/1/value"]


def test_plain_containers_are_pythons_own():
    tree = {"b": Heads(1, [2, None]), "a": Pair(nnx.Param(jnp.ones(2)), ())}
    plain = paths.plain(tree)
    assert type(plain["b"]) is OrderedDict and list(plain["b"]) == ["policy", "value"]
    assert type(plain["a"]) is Pair and plain["a"].right == () and plain["b"]["value"] == [2, None]
    assert paths.names(plain) == paths.names(tree)
    assert paths.plain(1.0) == 1.0 and paths.plain(None) is None and paths.plain(()) == ()


@pytest.mark.parametrize(
    ("updates", "params", "message"),
    [
        ({"a": {"b": jnp.ones(3)}}, {"a": {"b": jnp.ones((3, 4))}}, r'updates\["a"\]\["b"\] has shape \(3,\), params'),
        ({"a": jnp.ones(3)}, {"a": jnp.ones(3), "b": jnp.ones(1)}, "updates lack the leaf 'b', which params have"),
        ({"a": jnp.ones(3), "b": jnp.ones(1)}, {"a": jnp.ones(3)}, "params lack the leaf 'b', which updates have"),
        ({"a": jnp.ones(3)}, {"a": None}, r'updates\["a"\] has shape \(3,\), params have none'),
        ([jnp.ones(3)], (jnp.ones(3),), "different containers"),
    ],
)
def test_a_mismatch_names_the_leaf(updates, params, message):
    with pytest.raises(paths.MismatchError, match=message):
        paths.check_match(updates, params)

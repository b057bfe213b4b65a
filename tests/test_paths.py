"""Paths of leaves, and errors that name one."""

from typing import NamedTuple

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

"""What a state holds is found by name, replaced, and mapped like the parameters."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
import pytest
from flax import nnx
from jax.sharding import PartitionSpec

import gradtx
from gradtx.tree_utils import NamedTupleKey

P = {"w": jnp.ones((4, 6)), "b": jnp.ones(6)}
SPECS = {"w": PartitionSpec("x", None), "b": PartitionSpec("x")}
NONE = PartitionSpec()


class Pair(NamedTuple):
    first: int
    second: dict


TREE = {"deep": [Pair(1, {"first": 2}), {"second": 3}], "first": 4}


@pytest.mark.parametrize("key", ["first", "second", "Pair", "deep", "nothing"])
def test_what_is_found_is_what_optax_finds(key):
    ours, theirs = (lib.tree.get_all_with_path(TREE, key) for lib in (gradtx, optax))
    assert [(jax.tree_util.keystr(p), x) for p, x in ours] == [(jax.tree_util.keystr(p), x) for p, x in theirs]


def test_a_filter_sees_paths_and_values():
    of_pair = lambda path, value: isinstance(path[-1], NamedTupleKey) and path[-1].tuple_name == "Pair"
    assert gradtx.tree.get(TREE, "first", filtering=of_pair) == 1
    assert gradtx.tree.set(TREE, of_pair, first=9)["deep"][0].first == 9
    assert gradtx.tree.set(TREE, of_pair, first=9)["first"] == 4


def test_a_chains_count_is_the_count():
    tx = gradtx.chain(gradtx.clip(1.0), gradtx.adamw(1e-3))
    _, state = tx.update(P, tx.init(P), P)
    assert gradtx.tree.get(state, "count") == 1 and gradtx.tree_utils.tree_get(state, "mu")["w"].shape == (4, 6)
    assert gradtx.tree.get(state, "ScaleByAdamState").count == 1
    assert gradtx.tree.get(state, "missing", default=7) == 7


def test_what_is_ambiguous_or_missing_is_said_briefly():
    with pytest.raises(KeyError, match=r"3 values have the name 'first': .*choose one by `filtering`"):
        gradtx.tree.get(TREE, "first")
    with pytest.raises(KeyError, match="nothing in the tree has the name 'missing'"):
        gradtx.tree.set(TREE, missing=1)
    with pytest.raises(KeyError, match="nothing that `filtering` wants has the name 'first'"):
        gradtx.tree.set(TREE, lambda path, value: False, first=1)


def test_everything_of_a_name_is_replaced_in_its_container():
    replaced = gradtx.tree.set(TREE, first=0, second={"new": 1})
    assert replaced == {"deep": [Pair(0, {"new": 1}), {"second": {"new": 1}}], "first": 0}
    assert jax.jit(lambda s: gradtx.tree.set(s, count=jnp.int32(5)))(gradtx.adam(0.1).init(P))["count"] == 5


SLOTS = {
    "adamw": (lambda: gradtx.adamw(1e-3, mask="w"), 2 * 2),
    "adafactor": (lambda: gradtx.adafactor(0.1, 2), 1),
    "masked": (lambda: gradtx.masked(gradtx.scale_by_adam(), {"w": True, "b": False}), 2),
    "partition": (lambda: gradtx.partition({0: gradtx.adam(1.0), 1: gradtx.sgd(1.0, 0.9)}, {"w": 0, "b": 1}), 3),
    "MultiSteps": (lambda: gradtx.MultiSteps(gradtx.lamb(0.1), 2), 6),
    "monitor": (lambda: gradtx.monitor(gradtx.trace(0.9)), 2),
}


@pytest.mark.parametrize("name", SLOTS)
def test_shardings_of_the_parameters_are_those_of_their_slots_alone(name):
    """Rows and columns, counts and scalars are not made like the parameters."""
    make, slots = SLOTS[name]
    state = make().init(P)
    specs = gradtx.tree_map_params(make(), lambda _, spec: spec, state, SPECS, transform_non_params=lambda _: NONE)
    assert jax.tree.structure(specs) == jax.tree.structure(state)
    for x, spec in zip(jax.tree.leaves(state), jax.tree.leaves(specs), strict=True):
        assert len(spec) <= x.ndim
    assert sum(spec != NONE for spec in jax.tree.leaves(specs)) == slots


def test_other_leaves_stay_if_nothing_is_said_and_any_container_will_do():
    tx, model = gradtx.adam(1.0), nnx.state(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.Param)
    state = tx.init(model)
    mapped = gradtx.tree.map_params(tx.init, lambda m, p: m + p, state, model)
    assert mapped["count"] is state["count"]
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    assert (mapped["scale_by_adam"].mu["kernel"][...] == model["kernel"][...]).all()

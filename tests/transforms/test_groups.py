"""scale_by_group: a factor for each group; what it multiplies, what it leaves, its errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from gradtx import labels
from gradtx.labels import role
from tests.labels.models import haiku_params, named, ones
from tests.oracle import check_same

GROUPS = labels.groups({"small": role("embedding", "head", "norm", "bias"), "large": role("matrix", "conv")})
BY_RANK = labels.groups({"vectors": labels.rank(0, 1), "matrices": labels.rank(2)})


def test_a_group_is_scaled_by_its_number():
    params = ones(haiku_params())
    tx = gradtx.scale_by_group({"small": 2.0, "large": gradtx.linear_schedule(1.0, 0.0, 2)}, GROUPS)
    state = tx.init(params)
    assert isinstance(state, gradtx.ClockState)
    for t in range(3):
        updates, state = tx.update(params, state, params)
        for name, label in named(GROUPS(params)).items():
            np.testing.assert_array_equal(named(updates)[name], 2.0 if label == "small" else 1 - t / 2)  # exact
    assert jax.tree.leaves(gradtx.scale_by_group({"a": 0.5}, "a")) == [0.5]


def test_a_group_without_a_number_is_named():
    tx = gradtx.scale_by_group({"small": 2.0}, GROUPS)
    with pytest.raises(
        ValueError, match="the label 'large' of 'net/block_0/mlp/~/linear_0/w' is not one of multipliers'"
    ):
        tx.update(ones(haiku_params()), tx.init(haiku_params()), ones(haiku_params()))
    with pytest.raises(TypeError, match=r"multipliers\['a'\] must be a number"):
        gradtx.scale_by_group({"a": "b"}, GROUPS)
    with pytest.raises(TypeError, match="multipliers must be a dict"):
        gradtx.scale_by_group([1.0], GROUPS)


def test_behind_a_method_it_is_a_learning_rate_for_each_group():
    """As a partition into groups of other rates: here with one state."""
    together = gradtx.chain(
        gradtx.adamw(0.1, weight_decay=0.01), gradtx.scale_by_group({"vectors": 2.0, "matrices": 0.5}, BY_RANK)
    )
    apart = gradtx.partition(
        {"vectors": gradtx.adamw(0.2, weight_decay=0.01), "matrices": gradtx.adamw(0.05, weight_decay=0.01)}, BY_RANK
    )
    check_same(together, apart)


def test_in_a_chain_the_state_is_the_methods():
    params = ones(haiku_params())
    tx = gradtx.chain(gradtx.sgd(0.1, momentum=0.9), gradtx.scale_by_group({"small": 2.0, "large": 1.0}, GROUPS))
    structure = jax.tree.structure(gradtx.sgd(0.1, momentum=0.9).init(params))
    assert jax.tree.structure(tx.init(params)) == structure


def test_a_missing_gradient_stays_missing_and_other_groups_are_not_touched():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "steps": jnp.array(3)}
    updates = {"kernel": None, "bias": jnp.ones(3), "steps": None}
    tx = gradtx.scale_by_group({"small": 0.0, "large": 3.0}, GROUPS)
    found, _ = tx.update(updates, tx.init(params), params)
    assert found["kernel"] is None and found["steps"] is None and jnp.all(found["bias"] == 0)
    found, _ = tx.update(updates | {"kernel": params["kernel"], "bias": jnp.full(3, jnp.nan)}, tx.init(params), params)
    assert jnp.all(found["kernel"] == 3) and jnp.all(jnp.isnan(found["bias"]))


def test_multipliers_have_derivatives():
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}

    def total(tx):
        return sum(map(jnp.sum, jax.tree.leaves(tx.update(params, tx.init(params), params)[0])))

    slopes = jax.grad(total)(gradtx.scale_by_group({"small": 0.0, "large": 3.0}, GROUPS))
    assert slopes.multipliers == {"small": 3.0, "large": 6.0}

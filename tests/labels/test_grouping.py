"""A table of rules: what it decides, its errors, what it prints, and what takes it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import labels
from gradtx.labels import path, rank, role

from .models import CONTAINERS, haiku_params, named, nnx_params, ones


def test_the_first_rule_that_holds_decides():
    groups = labels.groups({"no decay": role("bias", "norm"), "heads": "head", "attention": "attention", "rest": ...})
    found = named(groups(nnx_params()))
    assert found["head/bias"] == found["blocks/0/norm/scale"] == "no decay"
    assert found["head/kernel"] == "heads" and found["blocks/0/attention/out/kernel"] == "attention"
    assert found["embed/embedding"] == "rest"


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (role("matrix") & "blocks/0/(attention/out|mlp)", {"blocks/0/attention/out/kernel", "blocks/0/mlp/kernel"}),
        ("^head/" & ~role("bias"), {"head/kernel"}),
        (rank(1) & "blocks/1" & ~path("attention|norm"), {"blocks/1/mlp/bias"}),
        ("^head/" | role("embedding"), {"head/kernel", "head/bias", "embed/embedding"}),
        (lambda name, shape: shape == (10,), {"head/bias"}),
    ],
)
def test_rules_join(rule, expected):
    found = named(labels.groups([(True, rule), (False, ...)])(nnx_params()))
    assert {name for name, label in found.items() if label} == expected


def test_a_parameter_without_a_group_is_named():
    with pytest.raises(ValueError, match=r"no rule holds for .*blocks/0/attention/key/kernel"):
        labels.groups({"a": role("bias", "norm", "head")})(nnx_params())


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"a": "enclosure", "b": ...}, r"labels.path\('enclosure'\) of 'a' decides no parameter of batch/bias"),
        ({"a": ["head", "tail"], "b": ...}, r"labels.path\('tail'\)"),
        ({"all": "/", "head": "^head"}, "of 'head' decides no parameter: rules before it took head/bias, head/kernel"),
    ],
)
def test_a_rule_without_a_parameter_is_named(rules, message):
    with pytest.raises(ValueError, match=message):
        labels.groups(rules)(nnx_params())


def test_all_others_may_be_none():
    assert set(jax.tree.leaves(labels.groups({"a": "/", "b": ...})(nnx_params()))) == {"a"}
    assert labels.groups({"a": "/"})({}) == {}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: labels.groups({}), "must be rules"),
        (lambda: labels.groups({"a": ..., "b": "x"}), "may only be the last"),
        (lambda: labels.groups({"a": "("}), "must be a regular expression"),
        (lambda: labels.role("weight"), "must be some of"),
        (lambda: labels.role(), "must be some of"),
        (lambda: labels.rank(), "numbers of axes"),
        (lambda: labels.groups({"a": "x"}).mask("b"), r"\['b'\] are not among the groups \['a'\]"),
        (lambda: gradtx.layerwise_decay(0.5, layer=r"layer_\d"), "with a group for the number"),
        (lambda: labels.depths(haiku_params(), r"stage(\d)"), "found in no path"),
        (lambda: gradtx.layerwise_decay(0.0), "decay must"),
    ],
)
def test_mistakes_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
    with pytest.raises(TypeError, match="a rule must be"):
        labels.groups({"a": 3})


GROUPS = labels.groups({"small": role("embedding", "head", "norm", "bias"), "large": role("matrix", "conv")})


def test_the_table_shows_what_was_decided():
    lines = labels.table(GROUPS, nnx_params()).splitlines()
    assert [line.split()[0] for line in lines] == ["group", "small", "large", "all"]
    total = sum(x.size for x in jax.tree.leaves(nnx_params()))
    assert lines[-1].split() == ["all", str(len(jax.tree.leaves(nnx_params()))), str(total), "100.0%"]
    assert "blocks/*/attention/key/kernel" in lines[2] and "more" in lines[2]
    assert len({line.index("%") for line in lines[1:]}) == 1
    by_role = labels.table(labels.roles, nnx_params()).splitlines()
    assert "head/kernel" in next(line for line in by_role if line.startswith("head"))
    by_depth = labels.table(labels.depths, nnx_params()).splitlines()
    assert [line.split()[0] for line in by_depth[1:]] == ["0", "1", "2", "3", "4", "all"]


def test_groups_are_values():
    again = eval(repr(GROUPS), {"labels": labels})
    assert again == GROUPS and hash(again) == hash(GROUPS) and GROUPS.labels == ("small", "large")
    mask = GROUPS.mask("small")
    assert eval(repr(mask), {"labels": labels}) == mask
    joined = labels.groups([(0, (~path("a") & "b") | rank(2)), (1, ...)])
    assert eval(repr(joined), {"labels": labels}) == joined


@CONTAINERS
def test_a_partition_takes_them_for_any_container(params):
    values = ones(params)
    for given in (GROUPS, GROUPS(params), GROUPS(values)):
        tx = gradtx.partition({"small": gradtx.scale(2.0), "large": gradtx.scale(3.0)}, given)
        updates, _ = tx.update(values, tx.init(values), values)
        factors = {name: 2.0 if label == "small" else 3.0 for name, label in named(GROUPS(params)).items()}
        assert {name: float(x.ravel()[0]) for name, x in named(updates).items()} == factors
        hash(tx)


@CONTAINERS
@pytest.mark.parametrize("given", [lambda mask, params: mask, lambda mask, params: mask(params)], ids=["rule", "tree"])
def test_masks_choose_their_groups_in_any_container(params, given):
    values, label_of = ones(params), named(GROUPS(params))
    mask = given(GROUPS.mask("large"), params)
    one_step = lambda tx, updates: named(tx.update(updates, tx.init(values), values)[0])
    decayed = one_step(gradtx.add_decayed_weights(0.5, mask=mask), jax.tree.map(jnp.zeros_like, values))
    masked = one_step(gradtx.masked(gradtx.scale(3.0), mask), values)
    adamw = one_step(gradtx.adamw(1.0, eps=0.0, weight_decay=0.5, mask=mask), values)
    for name, label in label_of.items():
        large = label == "large"
        np.testing.assert_array_equal(decayed[name], np.full(decayed[name].shape, 0.5 * large))
        np.testing.assert_array_equal(masked[name], np.full(masked[name].shape, 3.0 if large else 1.0))
        # a first step of Adam is the sign, to the rounding of float32
        np.testing.assert_allclose(adamw[name], np.full(adamw[name].shape, -1 - 0.5 * large), rtol=1e-6)


def test_a_mask_inside_a_partition_is_given_as_a_tree():
    values = ones(nnx_params())
    kernels = labels.groups({"decay": "kernel", "rest": ...})
    inner = gradtx.add_decayed_weights(1.0, mask=kernels.mask("decay")(values))
    tx = gradtx.partition({"small": inner, "large": gradtx.identity()}, GROUPS)
    updates = named(tx.update(values, tx.init(values), values)[0])
    assert jnp.all(updates["head/kernel"] == 2) and jnp.all(updates["head/bias"] == 1)
    assert jnp.all(updates["blocks/0/mlp/kernel"] == 1)


def test_what_is_not_floating_has_no_group():
    params = {
        "dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
        "steps": jnp.array(3),
        "key": jax.random.key(0),
    }
    assert named(GROUPS(params)) == {"dense/kernel": "large", "dense/bias": "small"}
    assert labels.table(GROUPS, params).splitlines()[-1].split() == ["all", "2", "9", "100.0%"]
    tx = gradtx.partition({"small": gradtx.scale(2.0), "large": gradtx.scale(3.0)}, GROUPS)
    updates = {"dense": params["dense"], "steps": None, "key": None}
    new = gradtx.apply_updates(params, tx.update(updates, tx.init(params), params)[0])
    assert jnp.all(new["dense"]["kernel"] == 4) and new["steps"] == 3


def test_optax_takes_them_where_its_containers_fit():
    params = ones(haiku_params())
    tx = optax.multi_transform({"small": optax.scale(2.0), "large": optax.scale(3.0)}, GROUPS)
    updates = named(tx.update(params, tx.init(params), params)[0])
    assert {name: float(u.ravel()[0]) for name, u in updates.items()} == {
        name: {"small": 2.0, "large": 3.0}[label] for name, label in named(GROUPS(params)).items()
    }


def test_an_equal_table_compiles_nothing():
    traces, params = [], ones(haiku_params())

    def init(tx, params):
        traces.append(1)
        return tx.init(params)

    jitted = jax.jit(init, static_argnums=0)
    for _ in range(2):
        again = labels.groups({"small": role("embedding", "head", "norm", "bias"), "large": role("matrix", "conv")})
        jitted(gradtx.partition({"small": gradtx.adam(1e-3), "large": gradtx.sgd(0.1)}, again), params)
    assert len(traces) == 1

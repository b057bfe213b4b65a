import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import gradtx
from tests.public import PUBLIC

PARAMS = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "norm": {"scale": jnp.ones(3)}}
TREE = {"dense": {"kernel": True, "bias": False}, "norm": {"scale": False}}
MASKS = {
    "tree": TREE,
    "prefix": {"dense": {"kernel": True, "bias": False}, "norm": False},
    "function": lambda params: jax.tree.map(lambda p: p.ndim > 1, params),
    "pattern": "kernel$",
    "patterns": ("ker", "nel$"),
    "paths": {"dense/kernel": True, "dense": False, "norm": False},
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_every_form_chooses_the_same_leaves(mask):
    tx = gradtx.add_decayed_weights(0.5, mask)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, PARAMS), tx.init(PARAMS), PARAMS)
    assert {p: float(u.max()) for p, u in zip(gradtx.paths.names(updates), jax.tree.leaves(updates), strict=True)} == {
        "dense/bias": 0.0,
        "dense/kernel": 0.5,
        "norm/scale": 0.0,
    }


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_leaves_that_are_not_chosen_pass_through_and_cost_nothing(mask):
    tx = gradtx.masked(gradtx.scale_by_adam(), mask)
    state = tx.init(PARAMS)
    assert gradtx.paths.names(state.inner_state) == ["count", "mu/dense/kernel", "nu/dense/kernel"]
    updates, _ = tx.update(PARAMS, state, PARAMS)
    assert updates["dense"]["bias"] is PARAMS["dense"]["bias"]
    assert updates["dense"]["kernel"][0, 0] == pytest.approx(1.0)
    without_params, _ = tx.update(PARAMS, state)
    assert without_params["dense"]["kernel"][0, 0] == pytest.approx(1.0)


@pytest.mark.parametrize("mask", [MASKS["tree"], MASKS["pattern"], MASKS["paths"]])
def test_masks_are_values(mask):
    tx = gradtx.adamw(1e-3, mask=mask)
    assert hash(tx) == hash(gradtx.adamw(1e-3, mask=mask)) and tx == gradtx.adamw(1e-3, mask=mask)
    assert tx != gradtx.adamw(1e-3)
    assert eval(repr(tx), dict(PUBLIC)) == tx


def test_the_container_does_not_matter():
    model = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    for mask in (jax.tree.map(lambda p: p.ndim > 1, state), {"kernel": True, "bias": False}):
        tx = gradtx.masked(gradtx.trace(0.9), mask)
        for params in (state, nnx.as_pure(state), dict(kernel=state["kernel"][...], bias=state["bias"][...])):
            assert gradtx.paths.names(tx.init(params).inner_state) == ["trace/kernel"]


def test_a_module_that_can_be_called_is_a_tree_not_a_function():
    model = eqx.nn.Linear(2, 3, key=jax.random.key(0))
    mask = eqx.tree_at(lambda m: (m.weight, m.bias), model, (True, False))
    state = gradtx.masked(gradtx.trace(0.9), mask).init(model)
    assert gradtx.paths.names(state.inner_state) == ["trace/weight"]


COLLIDING = {"net": {"a/b": jnp.ones(2)}, "net/a": {"b": jnp.ones(2)}}


@pytest.mark.parametrize(
    "mask",
    [
        {"net": {"a/b": False}, "net/a": {"b": True}},
        {"net": False, "net/a": True},
        lambda params: {"net": {"a/b": False}, "net/a": {"b": True}},
        r'^\["net/a"\]',
    ],
)
def test_keys_that_hold_the_separator_are_keys(mask):
    tx = gradtx.add_decayed_weights(0.5, mask)
    updates, _ = tx.update(COLLIDING, tx.init(COLLIDING), COLLIDING)
    assert updates["net"]["a/b"].tolist() == [1, 1] and updates["net/a"]["b"].tolist() == [1.5, 1.5]
    if not callable(mask):
        assert eval(repr(tx), dict(PUBLIC)) == tx


def test_a_joined_path_that_may_mean_two_leaves_is_refused():
    tx = gradtx.add_decayed_weights(0.5, {"net/a/b": True})
    with pytest.raises(ValueError, match=r"the mask's 'net/a/b' may mean \('net', 'a/b'\) or \('net/a', 'b'\): write"):
        tx.update(COLLIDING, tx.init(COLLIDING), COLLIDING)


class Heads(eqx.Module):
    policy: jax.Array
    value: jax.Array


@pytest.mark.parametrize("mask", ["^value$", {"policy": False, "value": True}, Heads(False, True)])
def test_a_field_called_value_is_a_field(mask):
    heads = Heads(jnp.ones(2), jnp.ones(2))
    updates, _ = gradtx.chain(gradtx.masked(gradtx.scale(2.0), mask)).update(heads, {"count": jnp.int32(0)}, heads)
    assert updates.policy.tolist() == [1, 1] and updates.value.tolist() == [2, 2]


def matrices(least, scale, params):
    return jax.tree.map(lambda p: p.ndim >= least and bool(scale), params)


class Chooses(eqx.Module):
    """A module that is called as a function, and one that holds numbers."""

    least: float = 2.0

    def __call__(self, params):
        return matrices(self.least, 1, params)


@pytest.mark.parametrize(
    "mask",
    [
        jax.tree_util.Partial(matrices, 2, True),
        functools.partial(matrices, 2, True),
        jax.tree_util.Partial(lambda params: matrices(2, True, params)),
        Chooses(),
    ],
    ids=["Partial", "partial", "Partial of nothing", "module"],
)
def test_a_function_may_be_a_pytree(mask):
    tx = gradtx.masked(gradtx.scale(2.0), mask)
    updates, _ = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert updates["dense"]["kernel"][0, 0] == 2 and updates["norm"]["scale"][0] == 1


@pytest.mark.parametrize(
    ("mask", "error", "message"),
    [
        (
            "kernl",
            ValueError,
            r"`add_decayed_weights`: the mask's pattern 'kernl' matches none of the paths \['dense/b",
        ),
        ({"dense": True}, ValueError, "`add_decayed_weights`: the mask has no entry for 'norm/scale'"),
        ({"dense": 1.0}, TypeError, "`add_decayed_weights`: mask must be a tree of bools.*got 1.0 at 'dense'"),
        (3, TypeError, "mask must be a tree of bools"),
        (lambda params: 3, TypeError, "mask must be a tree of bools"),
    ],
)
def test_bad_masks_are_named(mask, error, message):
    with pytest.raises(error, match=message):
        tx = gradtx.add_decayed_weights(0.1, mask)
        tx.update(PARAMS, tx.init(PARAMS), PARAMS)


def test_a_masked_chain_masks_every_link():
    tx = gradtx.masked(gradtx.adamw(0.1), "kernel")
    updates, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    assert updates["norm"]["scale"] is PARAMS["norm"]["scale"]
    assert float(updates["dense"]["kernel"][0, 0]) == pytest.approx(-0.1 * 1.0001)
    assert state.inner_state["count"] == 1


def test_a_mask_that_chooses_nothing_is_the_identity():
    tx = gradtx.masked(gradtx.adamw(0.1), False)
    updates, _ = tx.update(jnp.ones(2), tx.init(jnp.ones(2)), jnp.ones(2))
    assert updates.tolist() == [1.0, 1.0]


def test_a_masked_link_that_remembers_nothing_adds_no_state_to_a_chain():
    plain = gradtx.adam(0.1)
    clipped = gradtx.chain(gradtx.masked(gradtx.clip(lambda t: 0.5 / (1 + t)), "kernel"), plain)
    state = clipped.init(PARAMS)
    assert jax.tree.structure(state) == jax.tree.structure(plain.init(PARAMS))
    _, state = clipped.update(PARAMS, state, PARAMS)
    updates, _ = gradtx.chain(gradtx.masked(gradtx.scale(lambda t: t + 1), "kernel")).update(
        PARAMS, {"count": jnp.int32(2)}, PARAMS
    )
    assert updates["dense"]["kernel"][0, 0] == 3 * PARAMS["dense"]["kernel"][0, 0]

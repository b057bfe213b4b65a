"""What goes around a method goes around every one: the contract holds, and what changes nothing changes no bit."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from benchmarks.catalogue import CATALOGUE
from tests.steps import FIRST, avals, step, tree_of, walk

UPHILL = gradtx.chain(gradtx.normalize_adaptive(), gradtx.sgd(0.05))
MODIFIERS = {
    "direction": lambda tx: gradtx.chain(
        gradtx.orthogonal_gradients(),
        gradtx.graft(gradtx.scale_by_sign(), gradtx.cautious(tx, rescale="count", factor=0.25)),
        gradtx.decay_weights(0.1, 0.1, cautious=True, coupling="squared", peak_learning_rate=0.5),
    ),
    "parameters": lambda tx: gradtx.ema_nesterov(
        gradtx.average_params(gradtx.lawa(tx, 2, 3), 0.9, debias=True, start=2, share=0.6), 0.5
    ),
    "sharpness": lambda tx: gradtx.sam(gradtx.chain(gradtx.minus_surrogate_gap(), tx), UPHILL, opaque_mode=True),
}
# Of each family one.
METHODS = (
    "sgd", "adamw", "lion", "adafactor", "lamb", "contrib.muon", "contrib.prodigy", "contrib.schedule_free_adamw",
    "contrib.mechanize", "contrib.sam", "scale_by_soap", "clip+adamw",
)  # fmt: skip


def nothing(tx):
    """With factor 1 all of an entry is left, with beta 0 nothing is taken ahead, and averages are beside the way."""
    inside = gradtx.average_params(gradtx.lawa(gradtx.cautious(tx, factor=1.0), 1, 2), 0.9)
    return gradtx.ema_nesterov(inside, 0.0)


@pytest.mark.parametrize("name", FIRST)
def test_state_and_parameters_keep_their_avals(name, strict):
    """All modifiers around each other, so that all are proved by one trace."""
    around = CATALOGUE[name].build(gradtx)
    for modifier in MODIFIERS.values():
        around = modifier(around)
    params = tree_of("bfloat16")
    carry = params, jax.eval_shape(around.init, params)
    moved = jax.eval_shape(lambda *args: step(around, *args), *carry, tree_of("float32", 1))
    assert avals(moved) == avals(carry)
    evaluated = jax.eval_shape(lambda *args: gradtx.eval_params(around, *args), carry[1], params)
    assert avals(evaluated) == avals(params)


@pytest.mark.parametrize("name", METHODS)
def test_what_changes_nothing_changes_no_bit(name, op_by_op):
    tx = CATALOGUE[name].build(gradtx)
    params, grads = tree_of("float32"), [tree_of("float32", 1), tree_of("float32", 2)]
    around = nothing(tx)
    found, _ = walk(around, params, around.init(params), grads)
    want, _ = walk(tx, params, tx.init(params), grads)
    chex.assert_trees_all_equal(found, want)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("modifier", MODIFIERS)
def test_values_are_finite_and_missing_gradients_pass(name, modifier, op_by_op):
    around = MODIFIERS[modifier](CATALOGUE[name].build(gradtx))
    params = tree_of("float32") | {"frozen": jnp.ones(3), "steps": jnp.arange(3)}
    grads = tree_of("float32", 1) | {"frozen": None, "steps": np.zeros(3, jax.dtypes.float0)}
    state = around.init(params)
    for _ in range(3):
        params, state = step(around, params, state, grads)
    chex.assert_tree_all_finite((params, state))
    np.testing.assert_array_equal(params["frozen"], np.ones(3))
    evaluated = gradtx.eval_params(around, state, params)
    chex.assert_tree_all_finite(evaluated)
    assert evaluated["steps"] is params["steps"]


@pytest.mark.parametrize("name", ["sgd", "adamw", "lion"])
def test_a_method_grafted_on_itself_is_that_method_but_for_a_rounding(name, op_by_op):
    tx = CATALOGUE[name].build(gradtx)
    around = gradtx.graft(tx, tx)
    params, grads = tree_of("float32"), [tree_of("float32", 1), tree_of("float32", 2)]
    found, _ = walk(around, params, around.init(params), grads)
    want, _ = walk(tx, params, tx.init(params), grads)
    chex.assert_trees_all_close(found, want, rtol=1e-6)

"""Plain functions of the updates as transformations."""

import jax.numpy as jnp
import pytest

import gradtx

G, P = {"a": jnp.ones(2), "b": jnp.full(3, 2.0)}, {"a": jnp.full(2, 3.0), "b": jnp.ones(3)}


def test_a_function_of_the_trees():
    tx = gradtx.stateless(lambda updates, params: {k: updates[k] * params[k] for k in updates})
    updates, state = tx.update(G, tx.init(P), P)
    assert updates["a"].tolist() == [3.0, 3.0] and state == gradtx.EmptyState()


def test_a_function_of_the_leaves_with_and_without_parameters():
    tx = gradtx.chain(gradtx.stateless_with_tree_map(lambda g, p: g if p is None else g + p), gradtx.trace(0.5))
    state = tx.init(P)
    assert tx.update(G, state, P)[0]["b"].tolist() == [3.0] * 3
    assert tx.update(G, state)[0]["b"].tolist() == [2.0] * 3


def test_a_wrong_shape_is_an_error():
    with pytest.raises(ValueError, match=r"`stateless`.*shape"):
        gradtx.stateless(lambda g, p: {k: x[:1] for k, x in g.items()}).update(G, gradtx.EmptyState(), P)


def test_nothing_moves_and_one_type_takes_everything():
    tx = gradtx.set_to_zero()
    assert tx.update(G, tx.init(P), P)[0]["b"].tolist() == [0.0] * 3
    plain = gradtx.GradientTransformation(gradtx.init_empty_state, lambda u, s, p=None: (u, s))
    assert gradtx.with_extra_args_support(plain) is plain
    assert plain.update(G, plain.init(P), P, value=1.0)[0]["a"].tolist() == [1.0, 1.0]
    assert gradtx.GradientTransformationExtraArgs is gradtx.GradientTransformation

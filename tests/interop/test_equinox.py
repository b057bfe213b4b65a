"""In Equinox: modules whose leaves are None, functions and arrays; frozen layers."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

X = jnp.asarray(np.random.default_rng(0).normal(size=(8, 4)), jnp.float32)


def network():
    return eqx.nn.MLP(4, 2, 8, 1, use_final_bias=False, key=jax.random.key(0))


def loss(model, x):
    return jnp.mean((jax.vmap(model)(x) - x[:, :2]) ** 2)


def train(library, tx, model, apply, steps=3):
    state = tx.init(eqx.filter(model, eqx.is_inexact_array))

    @eqx.filter_jit
    def step(model, state):
        grads = eqx.filter_grad(loss)(model, X)
        updates, state = tx.update(grads, state, eqx.filter(model, eqx.is_inexact_array))
        return apply(model, updates), state

    for _ in range(steps):
        model, state = step(model, state)
    return model, state


METHODS = {
    "adamw": lambda lib: lib.adamw(0.05),
    "adafactor": lambda lib: lib.adafactor(0.05, min_dim_size_to_factor=2),
    "clip + lion": lambda lib: lib.chain(lib.clip_by_global_norm(0.5), lib.lion(0.01)),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_module_trains_as_with_optax(name):
    ours, _ = train(gradtx, METHODS[name](gradtx), network(), gradtx.apply_updates)
    theirs, _ = train(optax, METHODS[name](optax), network(), eqx.apply_updates)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        if eqx.is_inexact_array(a):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # float32 rounding in another order of operations


def test_frozen_layers_stay_and_cost_no_state():
    model = network()
    frozen = jax.tree.map(lambda _: False, eqx.filter(model, eqx.is_inexact_array))
    frozen = eqx.tree_at(lambda m: (m.layers[0].weight, m.layers[0].bias), frozen, (True, True))
    tx = gradtx.selective_transform(gradtx.adamw(0.05, weight_decay=0.5), freeze_mask=frozen)
    after, state = train(gradtx, tx, model, gradtx.apply_updates)
    assert (after.layers[0].weight == model.layers[0].weight).all()
    assert not (after.layers[1].weight == model.layers[1].weight).all()
    assert sorted(x.shape for x in jax.tree.leaves(state)) == [(), (), (2, 8), (2, 8)]


def test_gradients_of_a_part_of_the_module_are_enough():
    model = network()
    part = eqx.tree_at(lambda m: m.layers[1], jax.tree.map(lambda _: None, model), model.layers[1])
    tx = gradtx.adamw(0.05)
    params = eqx.filter(model, eqx.is_inexact_array)
    grads = eqx.filter(part, eqx.is_inexact_array)
    updates, state = tx.update(grads, tx.init(params), params)
    after = gradtx.apply_updates(model, updates)
    assert after.layers[0].weight is model.layers[0].weight
    assert not (after.layers[1].weight == model.layers[1].weight).all()
    assert jax.tree.structure(state) == jax.tree.structure(tx.init(params))

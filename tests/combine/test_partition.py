"""Groups with transformations of their own, and parameters that stay."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import gradtx

P = {"dense": {"kernel": jnp.linspace(-1.0, 1.0, 12).reshape(4, 3), "bias": jnp.ones(3)}, "scale": jnp.float32(2.0)}
LABELS = {"dense": {"kernel": "matrix", "bias": "rest"}, "scale": "frozen"}
GROUPS = lambda lib: {"matrix": lib.adam(0.1), "rest": lib.sgd(0.1, momentum=0.9), "frozen": lib.set_to_zero()}


def run(library, tx, params=P, steps=5, **extra):
    state = tx.init(params)
    for t in range(steps):
        grads = jax.tree.map(lambda p, t=t: p / 4 + jnp.cos(t + p), params)
        updates, state = tx.update(grads, state, params, **extra)
        params = library.apply_updates(params, updates)
    return params, state


def by_rank(params):
    return jax.tree.map(lambda p: "matrix" if p.ndim > 1 else "rest", params)


@pytest.mark.parametrize("labels", [LABELS, {"dense": "rest", "scale": "frozen"}, by_rank])
def test_the_groups_are_trained_as_by_optax(labels):
    ours, theirs = (run(lib, lib.partition(GROUPS(lib), labels))[0] for lib in (gradtx, optax))
    # five steps in float32: each rounds at 6e-8, and the gradients depend on the parameters
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), ours, theirs)


def test_programs_find_optaxs_state_and_only_the_groups_slots_in_it():
    state = gradtx.partition(GROUPS(gradtx), LABELS).init(P)
    assert isinstance(state, gradtx.PartitionState) and gradtx.MultiTransformState is gradtx.PartitionState
    assert set(state.inner_states) == {"matrix", "rest", "frozen"}
    adam = state.inner_states["matrix"].inner_state["scale_by_adam"]
    assert adam.mu["dense"]["bias"] is None and adam.mu["dense"]["kernel"].shape == (4, 3)
    assert jax.tree.leaves(state.inner_states["frozen"]) == []


def test_a_bound_in_a_group_is_the_groups_and_one_before_is_of_all():
    grads = jax.tree.map(lambda p: jnp.full_like(p, 100.0), P)
    unit = lambda lib: lib.clip_by_global_norm(1.0)
    labels = {"dense": "a", "scale": "b"}
    for library in (gradtx, optax):
        inside = library.partition({"a": unit(library), "b": unit(library)}, labels)
        updates, _ = inside.update(grads, inside.init(P), P)
        assert gradtx.global_norm(updates) == pytest.approx(2**0.5, rel=1e-6)
    before = gradtx.chain(unit(gradtx), gradtx.partition({"a": gradtx.identity(), "b": gradtx.identity()}, labels))
    updates, _ = before.update(grads, before.init(P), P)
    assert gradtx.global_norm(updates) == pytest.approx(1.0, rel=1e-6)


def test_labels_fit_any_container():
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    module = eqx.nn.Linear(3, 4, key=jax.random.key(0))
    for params, labels in (
        (nnx.state(model, nnx.Param), {"kernel": "matrix", "bias": "rest"}),
        (nnx.state(model, nnx.Param), by_rank),
        (module, eqx.tree_at(lambda m: (m.weight, m.bias), module, ("matrix", "rest"))),
    ):
        tx = gradtx.partition(GROUPS(gradtx), labels)
        state = tx.init(params)
        updates, state = tx.update(params, state, params)
        assert jax.tree.structure(gradtx.apply_updates(params, updates)) == jax.tree.structure(params)
        assert len(jax.tree.leaves(state.inner_states["rest"])) == 2  # a count and one slot


def test_what_does_not_fit_is_named():
    with pytest.raises(ValueError, match=r"the label 'frozen' of 'scale' is not one of .*'matrix', 'rest'"):
        gradtx.partition({"matrix": gradtx.identity(), "rest": gradtx.identity()}, LABELS).init(P)
    with pytest.raises(ValueError, match=r"the labels has no entry for 'scale'"):
        gradtx.partition(GROUPS(gradtx), {"dense": "rest"}).init(P)
    with pytest.raises(TypeError, match=r"transforms must be a dict"):
        gradtx.partition([gradtx.identity()], LABELS)
    with pytest.raises(TypeError, match=r"transforms\['a'\] must be"):
        gradtx.partition({"a": 3}, "a")


def test_extra_arguments_reach_the_groups_and_are_divided_if_asked():
    seen = []
    spy = gradtx.GradientTransformation(
        lambda p: (), lambda u, s, p=None, *, value, like: (seen.append((value, like)), (u, s))[1]
    )
    tx = gradtx.partition({"a": spy, "b": gradtx.identity()}, {"dense": "a", "scale": "b"})
    tx.update(P, tx.init(P), P, value=1.0, like=P)
    divided = gradtx.partition({"a": spy, "b": spy}, {"dense": "a", "scale": "b"}, mask_compatible_extra_args=True)
    divided.update(P, divided.init(P), P, value=1.0, like=P)
    assert [value for value, _ in seen] == [1.0] * 3
    assert [like["scale"] is None for _, like in seen] == [False, True, False]


def test_a_monitor_tells_each_groups_rate():
    tx = gradtx.monitor(gradtx.partition({"a": gradtx.adam(0.1), "b": gradtx.sgd(0.5)}, {"dense": "a", "scale": "b"}))
    _, state = tx.update(P, tx.init(P), P)
    found = gradtx.metrics(state)
    assert found["learning_rate/dense/kernel"] == pytest.approx(0.1) and found["learning_rate/scale"] == 0.5


def test_frozen_parameters_stay_and_cost_nothing():
    mask = {"dense": {"kernel": False, "bias": True}, "scale": True}
    tx = gradtx.selective_transform(gradtx.adamw(0.1, weight_decay=0.5), freeze_mask=mask)
    params, state = run(gradtx, tx)
    assert params["dense"]["bias"].tolist() == [1.0] * 3 and params["scale"] == 2.0
    assert params["dense"]["kernel"][0, 0] != P["dense"]["kernel"][0, 0]
    assert [x.shape for x in jax.tree.leaves(state)] == [(), (), (4, 3), (4, 3)]
    # Optax loses digits of 1 - 0.999^t at the first steps
    theirs = optax.selective_transform(optax.adamw(0.1, weight_decay=0.5), freeze_mask=mask)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=5e-5), params, run(optax, theirs)[0])
    # a mask that masks leaves lets their raw gradients through; freeze stops them
    raw = gradtx.chain(gradtx.masked(gradtx.sgd(0.1), "kernel"), gradtx.freeze("bias|scale"))
    assert run(gradtx, raw)[0]["scale"] == 2.0


def test_eval_params_pass_through_groups():
    class average(gradtx.GradientTransformation):
        def init(self, params):
            return {"mean": params}

        def update(self, updates, state, params=None, **extra):
            return updates, state

        def eval_params(self, state, params):
            return jax.tree.map(lambda p, m: p + m, params, state["mean"])

    tx = gradtx.partition({"a": average(), "b": gradtx.identity()}, {"dense": "a", "scale": "b"})
    inside = gradtx.eval_params(gradtx.MultiSteps(tx, 2), gradtx.MultiSteps(tx, 2).init(P), P)
    assert inside["dense"]["bias"].tolist() == [2.0] * 3 and inside["scale"] == 2.0

"""monitor: what is seen of a transformation is what happens, and nothing else happens."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from flax.training.train_state import TrainState

import gradtx

SCHEDULE = gradtx.linear_schedule(0.5, 0.1, 4)
PARAMS = {"dense": {"kernel": jnp.array([[3.0, -4.0], [0.0, 12.0]]), "bias": jnp.array([0.6, 0.8])}}
GRADS = [jax.tree.map(lambda p, k=k: jnp.full_like(p, k), PARAMS) for k in (1.0, 0.1, -2.0, 0.2)]


def norm(tree):
    return np.sqrt(sum(np.sum(np.asarray(x, np.float64) ** 2) for x in jax.tree.leaves(tree)))


def run(tx, params, grads, state=None):
    """The metrics, updates and state of every step."""
    step = jax.jit(tx.update)
    state, seen = tx.init(params) if state is None else state, []
    for g in grads:
        updates, state = step(g, state, params)
        seen.append((updates, state, params))
        params = gradtx.apply_updates(params, updates)
    return seen


def test_it_sees_what_happens():
    tx = gradtx.monitor(gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(SCHEDULE)))
    clipped = 0
    for t, (g, (updates, state, params)) in enumerate(zip(GRADS, run(tx, PARAMS, GRADS), strict=True)):
        found = gradtx.metrics(state)
        clipped += norm(g) > 1
        want = {
            "learning_rate": 0.5 - 0.1 * t,
            "gradient_norm": norm(g),
            "update_norm": (0.5 - 0.1 * t) * min(norm(g), 1.0),
            "clipped_fraction": clipped / (t + 1),
            "skipped_steps": 0,
            "update_ratio/dense/bias": norm(updates["dense"]["bias"]) / norm(params["dense"]["bias"]),
            "update_ratio/dense/kernel": norm(updates["dense"]["kernel"]) / norm(params["dense"]["kernel"]),
        }
        assert found.keys() == want.keys()
        for name in want:  # a handful of float32 roundings
            np.testing.assert_allclose(found[name], want[name], rtol=1e-6, err_msg=name)
    assert clipped == 2


@pytest.mark.parametrize(
    ("clip", "expected"),
    [(gradtx.clip(0.15), 3 / 4), (gradtx.clip_by_block_rms(1.5), 1 / 4), (gradtx.clip_by_global_norm(3.0), 1 / 4)],
)
def test_every_clip_reports(clip, expected):
    *_, (_, state, _) = run(gradtx.monitor(gradtx.chain(clip, gradtx.adam(0.1))), PARAMS, GRADS)
    assert gradtx.metrics(state)["clipped_fraction"] == expected


def test_it_changes_nothing():
    tx = gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.adamw(SCHEDULE))
    plain, monitored = run(tx, PARAMS, GRADS), run(gradtx.monitor(tx), PARAMS, GRADS)
    for (u, state, _), (v, seen, _) in zip(plain, monitored, strict=True):
        # Another program: XLA may round a product and a sum in one or in two.
        chex.assert_trees_all_close((u, state), (v, seen.inner), rtol=1e-6, atol=1e-7)
        assert jax.tree.structure(state) == jax.tree.structure(seen.inner)


def test_a_running_state_can_be_looked_at_from_the_middle():
    tx = gradtx.adamw(SCHEDULE)
    whole = run(tx, PARAMS, GRADS)
    _, running, _ = whole[1]
    params = whole[2][2]
    watched = gradtx.monitor(tx)
    *_, (updates, state, _) = run(watched, params, GRADS[2:], watched.init(params)._replace(inner=running))
    chex.assert_trees_all_close(updates, whole[-1][0], rtol=1e-6, atol=1e-7)  # as above
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], SCHEDULE(3), rtol=1e-7)


def test_it_sees_through_combinators_and_counts_skipped_steps():
    inner = gradtx.named_chain(("clip", gradtx.masked(gradtx.clip(0.15), "bias")), ("adam", gradtx.adam(SCHEDULE)))
    tx = gradtx.monitor(gradtx.apply_if_finite(inner))
    bad = jax.tree.map(lambda p: p * jnp.nan, PARAMS)
    *_, (_, state, _) = run(tx, PARAMS, [GRADS[0], bad, bad, GRADS[1]])
    found = gradtx.metrics(state)
    assert found["skipped_steps"] == 2 and found["clipped_fraction"] == 1 / 4
    np.testing.assert_allclose(found["learning_rate"], SCHEDULE(1), rtol=1e-7)  # the schedule inside stood still
    *_, (_, state, _) = run(tx, PARAMS, [GRADS[0], bad])
    assert gradtx.metrics(state)["learning_rate"] == gradtx.metrics(state)["update_norm"] == 0


def test_ratios_of_parameters_at_zero_and_of_those_that_rest():
    params = {"zero": jnp.zeros(2), "rests": jnp.zeros(2), "none": jnp.ones(2)}
    grads = {"zero": jnp.ones(2), "rests": jnp.zeros(2), "none": None}
    tx = gradtx.monitor(gradtx.sgd(0.1))
    _, state = tx.update(grads, tx.init(params), params)
    found = gradtx.metrics(state)
    assert [float(found[f"update_ratio/{name}"]) for name in ("zero", "rests", "none")] == [0.0, 0.0, 0.0]


def test_a_lone_array_has_a_ratio_without_a_path():
    tx = gradtx.monitor(gradtx.sgd(0.5))
    _, state = tx.update(jnp.ones(4), tx.init(jnp.ones(4)), jnp.ones(4))
    assert gradtx.metrics(state)["update_ratio"] == 0.5


def test_without_params_there_are_no_ratios():
    tx = gradtx.monitor(gradtx.sgd(0.1))
    _, state = tx.update(GRADS[0], tx.init(PARAMS))
    assert gradtx.metrics(state)["update_ratio/dense/kernel"] == 0
    np.testing.assert_allclose(gradtx.metrics(state)["update_norm"], 0.1 * norm(GRADS[0]), rtol=1e-6)


def test_metrics_are_found_in_flax_and_optax_states():
    tx = gradtx.monitor(gradtx.sgd(0.25))
    train = TrainState.create(apply_fn=None, params=PARAMS, tx=tx).apply_gradients(grads=GRADS[0])
    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.chain(tx), wrt=nnx.Param)
    optimizer.update(model, nnx.state(model))
    found = gradtx.metrics(optimizer.opt_state)
    assert gradtx.metrics(train)["learning_rate"] == float(found["learning_rate"]) == 0.25
    np.testing.assert_allclose(found["update_ratio/kernel"], 0.25, rtol=1e-6)


def test_a_foreign_transformation_is_monitored_too():
    tx = gradtx.monitor(optax.adam(0.1))
    updates, state = tx.update(GRADS[0], tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(gradtx.metrics(state)["update_norm"], norm(updates), rtol=1e-6)


def test_what_a_foreign_one_traces_in_a_branch_is_not_heard():
    sgd = gradtx.sgd(0.1)

    def update(updates, state, params=None, **extra):
        step = lambda: sgd.update(updates, state, params, **extra)
        return jax.lax.cond(state["count"] >= 0, step, lambda: (updates, state))

    tx = gradtx.monitor(gradtx.GradientTransformation(sgd.init, update))
    _, state = jax.jit(tx.update)(GRADS[0], tx.init(PARAMS), PARAMS)
    found = gradtx.metrics(state)
    assert found["learning_rate"] == 0
    np.testing.assert_allclose(found["update_norm"], 0.1 * norm(GRADS[0]), rtol=1e-6)


def test_a_transformation_of_ones_own_reports():
    @gradtx.transformation
    class halve(gradtx.GradientTransformation):
        def update(self, updates, state, params=None, **extra):
            gradtx.record(extra, skipped=lambda: jnp.array(True))
            return jax.tree.map(lambda g: g / 2, updates), state

    tx = gradtx.monitor(halve())
    _, state = tx.update(GRADS[0], tx.init(PARAMS))
    assert gradtx.metrics(state)["skipped_steps"] == 1


@pytest.mark.parametrize(
    "tx",
    [
        gradtx.adafactor(gradtx.linear_schedule(0.01, 0.0, 10)),
        gradtx.adafactor(0.01, momentum=0.9, weight_decay_rate=1e-3),
        gradtx.adafactor(0.01, multiply_by_parameter_scale=False),
        gradtx.chain(gradtx.sgd(0.1), gradtx.scale_by_learning_rate(0.1, flip_sign=False)),
        gradtx.apply_if_finite(gradtx.adafactor(0.01)),
        gradtx.apply_if_finite(gradtx.apply_if_finite(gradtx.adafactor(0.01))),
    ],
)
def test_the_rate_is_that_of_all_links_together(tx):
    tx = gradtx.monitor(tx)
    _, state = jax.jit(tx.update)(GRADS[0], tx.init(PARAMS), PARAMS)
    np.testing.assert_allclose(gradtx.metrics(state)["learning_rate"], 0.01, rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda tx: tx, gradtx.apply_if_finite, lambda tx: gradtx.masked(tx, True)])
def test_each_group_has_its_rate(wrap):
    kernels, biases = gradtx.masked(gradtx.adamw(SCHEDULE), "kernel"), gradtx.masked(gradtx.sgd(0.01), "bias")
    half = gradtx.scale_by_learning_rate(0.5, flip_sign=False)
    tx = gradtx.monitor(wrap(gradtx.chain(kernels, biases, gradtx.masked(gradtx.masked(half, "bias"), "dense"))))
    state = tx.init(PARAMS)
    for t in range(2):
        _, state = jax.jit(tx.update)(GRADS[0], state, PARAMS)
        found = gradtx.metrics(state)
        np.testing.assert_allclose(found["learning_rate/dense/kernel"], SCHEDULE(t), rtol=1e-6)
        np.testing.assert_allclose(found["learning_rate/dense/bias"], 0.005, rtol=1e-6)
        assert found["learning_rate"] == found["learning_rate/dense/kernel"]


def test_a_leaf_that_nothing_multiplies_has_rate_zero():
    tx = gradtx.monitor(gradtx.masked(gradtx.sgd(0.1), "kernel"))
    _, state = tx.update(GRADS[0], tx.init(PARAMS))
    assert gradtx.metrics(state)["learning_rate/dense/bias"] == 0


def test_metrics_of_colliding_paths_are_kept_apart():
    params = {"net": {"a/b": jnp.ones(2)}, "net/a": {"b": jnp.full(2, 2.0)}}
    tx = gradtx.monitor(gradtx.sgd(0.1))
    _, state = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    found = gradtx.metrics(state)
    np.testing.assert_allclose(found['update_ratio/["net"]["a/b"]'], 0.1, rtol=1e-6)
    np.testing.assert_allclose(found['update_ratio/["net/a"]["b"]'], 0.05, rtol=1e-6)


def test_nothing_is_computed_for_nobody():
    def never():
        raise AssertionError("called without a monitor")

    gradtx.record({}, clipped=never)
    gradtx.record(clipped=never)

    class whispers(gradtx.GradientTransformation):
        def update(self, updates, state):
            jax.lax.cond(True, lambda: gradtx.record(clipped=never), lambda: None)
            return updates, state

    for tx in (whispers(), gradtx.monitor(whispers()), gradtx.apply_if_finite(gradtx.masked(whispers(), True))):
        tx.update(GRADS[0], tx.init(PARAMS), PARAMS)


def test_it_works_stacked():
    def last(rate):
        tx = gradtx.monitor(gradtx.sgd(rate))
        return tx.update(GRADS[0], tx.init(PARAMS), PARAMS)[1]

    found = gradtx.metrics(jax.vmap(last)(jnp.array([0.1, 0.3])))
    np.testing.assert_allclose(found["learning_rate"], [0.1, 0.3], rtol=1e-7)
    assert found["clipped_fraction"].shape == (2,)


@pytest.mark.parametrize("tx", [gradtx.adam(0.1), gradtx.chain(*[gradtx.monitor(gradtx.sgd(0.1))] * 2)])
def test_no_monitor_and_two_are_errors(tx):
    with pytest.raises(ValueError, match=r"`metrics`: the state holds [02] states of `monitor`, expected 1"):
        gradtx.metrics(tx.init(PARAMS))


def test_not_a_transformation_is_an_error():
    with pytest.raises(TypeError, match=r"`monitor`: inner must be a gradient transformation.*call it"):
        gradtx.monitor(gradtx.adam)

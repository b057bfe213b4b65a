"""sam and normalize: Foret et al. 2021, Algorithm 1 (arXiv 2010.01412)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import gradtx
from tests.oracle import both_precisions, check

RHO, RATE = 0.05, 0.1
UPHILL = gradtx.chain(gradtx.normalize(), gradtx.sgd(RHO))


def size(tree):
    return np.sqrt(sum(np.sum(np.abs(x) ** 2) for x in tree.values()))


def walking(period):
    """w_adv = w + rho g / |g|, period - 1 times, and w <- w - rate g(w_adv), one of these for each call."""

    def rule(first):
        home, since = first, 0

        def step(g, p, t):
            nonlocal home, since
            home = p if since == 0 else home
            since = (since + 1) % period
            if since:
                return {k: RHO * g[k] / size(g) for k in p}
            return {k: home[k] - RATE * g[k] - p[k] for k in p}

        return step

    return rule


@both_precisions
@pytest.mark.parametrize("period", [1, 2, 3])
def test_it_walks_uphill_and_steps_down_from_where_it_began(period, precision):
    check(gradtx.sam(gradtx.sgd(RATE), UPHILL, period), walking(period), precision)


def test_complex_parameters_are_pairs_of_reals():
    check(gradtx.sam(gradtx.sgd(RATE), UPHILL), walking(2), complex_leaves=("dense/kernel",))


def slope(p):
    """Of a function with a minimum at 1 in every coordinate, and of another curvature in each leaf."""
    return jax.tree.map(lambda x: (x - 1) * (1 + x.ndim) + (x - 1) ** 3, p)


def opaque(period):
    """The whole of Algorithm 1 in one call; the first gradient is the one given."""

    def rule(first):
        at = lambda p: {k: (x - 1) * (1 + x.ndim) + (x - 1) ** 3 for k, x in p.items()}

        def step(g, p, t):
            q = p
            for _ in range(period - 1):
                q = {k: q[k] + RHO * g[k] / size(g) for k in q}
                g = at(q)
            return {k: -RATE * g[k] for k in p}

        return step

    return rule


def with_slope(tx, **extra):
    return gradtx.GradientTransformation(tx.init, lambda g, s, p: tx.update(g, s, p, **extra))


@both_precisions
@pytest.mark.parametrize("period", [1, 2, 3])
def test_in_opaque_mode_one_update_does_it_all(period, precision):
    tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, period, opaque_mode=True)
    check(with_slope(tx, grad_fn=slope), opaque(period), precision)


P = {"w": jnp.array([0.5, -1.0, 2.0]), "b": jnp.array(0.25)}


def loss(p):
    return sum(jnp.sum((x - 1) ** 2 * (1 + x.ndim) / 2 + (x - 1) ** 4 / 4) for x in jax.tree.leaves(p))


def moved(tx, p, steps, **extra):
    """Parameters after some steps, the gradient taken anew at each."""

    def step(carry, _):
        p, state = carry
        updates, state = tx.update(slope(p), state, p, **extra)
        return (gradtx.apply_updates(p, updates), state), None

    return jax.lax.scan(step, (p, tx.init(p)), length=steps)[0]


@pytest.mark.parametrize("period", [2, 3])
@pytest.mark.parametrize("reset", [True, False])
def test_both_modes_walk_the_same_way(period, reset):
    parts = gradtx.sgd(0.05, momentum=0.5), gradtx.chain(gradtx.normalize(), gradtx.adam(0.05))
    steps = 4
    hidden, _ = moved(gradtx.sam(*parts, period, reset, True), P, steps, grad_fn=slope)
    seen, _ = moved(gradtx.sam(*parts, period, reset), P, steps * period)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), hidden, seen)  # home = p + (home - p)


@pytest.mark.parametrize(
    "extra",
    [{"grad_fn": slope}, {"grad_fn": lambda p, i: slope(p)}, {"grad_fn": jax.grad(loss)}, {"value_fn": loss}],
    ids=["one argument", "two", "grad", "value"],
)
def test_gradients_may_be_given_in_several_ways(extra):
    tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, opaque_mode=True)
    updates, _ = tx.update(slope(P), tx.init(P), P, **extra)
    want, _ = tx.update(slope(P), tx.init(P), P, grad_fn=slope)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), updates, want)  # a rounding or two


def test_the_number_of_the_step_uphill_is_given():
    seen = []
    tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, 4, opaque_mode=True)
    tx.update(P, tx.init(P), P, grad_fn=lambda p, i: (seen.append(i), p)[1])
    assert seen == [0, 1, 2]


def test_between_the_steps_down_the_model_is_where_the_walk_began():
    tx = gradtx.chain(gradtx.clip(10.0), gradtx.sam(gradtx.sgd(RATE), UPHILL, 3))
    state, p, home = tx.init(P), P, P
    for t in range(1, 7):
        updates, state = tx.update(slope(p), state, p)
        p = gradtx.apply_updates(p, updates)
        home = p if t % 3 == 0 else home
        jax.tree.map(np.testing.assert_array_equal, gradtx.eval_params(tx, state, p), home)
        assert (p is home) == (t % 3 == 0)


def test_the_evaluated_parameters_are_those_of_the_method_inside():
    inside = gradtx.schedule_free_sgd(RATE)
    tx = gradtx.sam(inside, UPHILL)
    p, state = moved(tx, P, 4)
    want = gradtx.schedule_free_eval_params(state.opt_state, p)
    jax.tree.map(np.testing.assert_array_equal, gradtx.eval_params(tx, state, p), want)


def test_an_infinite_gradient_of_a_step_uphill_does_not_stay():
    """Optax selects by multiplying with 0, and 0 times infinity is NaN."""
    tx = gradtx.sam(gradtx.sgd(RATE, momentum=0.9), gradtx.sgd(RHO, momentum=0.9))
    _, state = tx.update(jax.tree.map(lambda x: jnp.full_like(x, jnp.inf), P), tx.init(P), P)
    updates, state = tx.update(P, state, P)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves((updates, state)))


@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("hidden", [True, False])
def test_noise_passes(reset, hidden):
    parts = gradtx.noisy_sgd(RATE, key=0), gradtx.noisy_sgd(RHO, key=1)
    p, _ = moved(gradtx.sam(*parts, 2, reset, hidden), P, 4, grad_fn=slope)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(p))


def test_a_walk_begins_with_a_fresh_state_or_not():
    parts = gradtx.sgd(RATE), gradtx.sgd(RHO, momentum=0.9)
    for reset in (True, False):
        tx = gradtx.sam(*parts, 2, reset)
        state = tx.init(P)
        for _ in range(2):
            _, state = tx.update(P, state, P)
        assert np.all(state.adv_state["trace"].trace["w"] == 0) == reset


def test_a_model_of_batches_averages_their_gradients():
    auto = (jax.sharding.AxisType.Auto,)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=auto, devices=jax.devices()[:2])
    spec = jax.sharding.PartitionSpec
    batches = jnp.array([[1.0, -2.0], [3.0, 0.5]])
    tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, opaque_mode=True, batch_axis_name="batch")
    p = jnp.array([0.5, 0.25])

    def step(p, batch):
        grad_fn = lambda q, i: jnp.tanh(q - batch[0])
        updates, _ = tx.update(jax.lax.pmean(grad_fn(p, 0), "batch"), tx.init(p), p, grad_fn=grad_fn)
        return updates

    mapped = jax.shard_map(step, mesh=mesh, in_specs=(spec(), spec("batch")), out_specs=spec(), check_vma=False)
    alone = gradtx.sam(gradtx.sgd(RATE), UPHILL, opaque_mode=True)
    both = lambda q: jnp.mean(jnp.tanh(q - batches), axis=0)
    want, _ = alone.update(both(p), alone.init(p), p, grad_fn=both)
    np.testing.assert_allclose(mapped(p, batches), want, rtol=1e-6)  # two means of two numbers


def test_a_monitor_sees_the_rate_of_the_step_down():
    tx = gradtx.monitor(gradtx.sam(gradtx.sgd(RATE), UPHILL))
    state, rates = tx.init(P), []
    for _ in range(4):
        _, state = tx.update(P, state, P)
        rates.append(float(gradtx.metrics(state)["learning_rate"]))
    np.testing.assert_allclose(rates, [0, RATE, 0, RATE], rtol=1e-6)


def test_parameters_without_gradient_stay():
    for extra in ({}, {"opaque_mode": True}):
        tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, **extra)
        state, p = tx.init(P), P
        for _ in range(2):
            updates, state = tx.update({"w": p["w"], "b": None}, state, p, grad_fn=lambda p, i: p)
            assert updates["b"] is None
            p = gradtx.apply_updates(p, updates)
        assert p["b"] is P["b"]


def test_kept_parameters_are_a_copy():
    state = gradtx.sam(gradtx.adam(RATE), UPHILL).init(P)
    buffers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves((P, state))]
    assert len(set(buffers)) == len(buffers)
    assert gradtx.sam(gradtx.adam(RATE), UPHILL, opaque_mode=True).init(P).cache is None


def test_normalize_makes_the_joint_norm_one_and_leaves_zeros():
    tx = gradtx.normalize()
    updates, state = tx.update(P, tx.init(P))
    np.testing.assert_allclose(gradtx.global_norm(updates), 1, rtol=1e-6)  # some roundings
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, P), state)
    jax.tree.map(lambda u: np.testing.assert_array_equal(u, np.zeros_like(u)), updates)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"`sam`: sync_period must .*, got 0"):
        gradtx.sam(gradtx.sgd(RATE), UPHILL, 0)
    with pytest.raises(TypeError, match="`sam`: adv_optimizer must be a gradient transformation"):
        gradtx.sam(gradtx.sgd(RATE), RHO)
    tx = gradtx.sam(gradtx.sgd(RATE), UPHILL, opaque_mode=True)
    with pytest.raises(ValueError, match=r"`sam` with opaque_mode takes gradients itself: call .*grad_fn="):
        tx.update(P, tx.init(P), P)
    with pytest.raises(ValueError, match="`sam` reads the parameters"):
        tx.update(P, tx.init(P))

"""k micro-batches make one update, of the mean of their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.steps import CATALOGUE, FIRST, convex, tree_of

P = {"w": jnp.array([1.0, -2.0, 3.0]), "b": jnp.array(0.5)}
G = [jax.tree.map(lambda p, t=t: jnp.cos(t + p), P) for t in range(12)]


def run(library, tx, grads=G, **extra):
    params, state, seen = P, tx.init(P), []
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))
    for g in grads:
        updates, state = update(g, state, params)
        seen.append(updates)
        params = library.apply_updates(params, updates)
    return seen, state


def close(a, b):
    # Optax loses five of seven digits of 1 - 0.999^t at the first steps, and half of that is left after the root.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=3e-5, atol=1e-7), a, b)


@pytest.mark.parametrize("mean", [True, False])
@pytest.mark.parametrize("k", [1, 3, np.int64(2), lambda step: 1 + step % 3], ids=["1", "3", "numpy", "schedule"])
def test_the_updates_are_optaxs(k, mean):
    rate = lambda t: 0.1 / (1 + t)
    theirs_k = int(k) if isinstance(k, np.integer) else k
    ours = run(gradtx, gradtx.MultiSteps(gradtx.adamw(rate), k, mean))
    theirs = run(optax, optax.MultiSteps(optax.adamw(rate), theirs_k, mean))
    close(ours[0], theirs[0])
    assert ours[1].gradient_step == theirs[1].gradient_step and ours[1].mini_step == theirs[1].mini_step
    assert gradtx.MultiSteps(gradtx.sgd(0.1), k).has_updated(ours[1]) == optax.MultiSteps(
        optax.sgd(0.1), theirs_k
    ).has_updated(theirs[1])


def test_apply_every_is_optaxs():
    for k in (1, 3):
        tx = lambda lib, k=k: lib.chain(lib.scale_by_adam(), lib.scale(-0.1), lib.apply_every(k))
        close(run(gradtx, tx(gradtx))[0], run(optax, tx(optax))[0])


@pytest.mark.parametrize("library", [gradtx, optax])
def test_one_infinite_gradient_does_not_stay(library):
    bad = jax.tree.map(lambda x: x * jnp.inf, G[1])
    tx = library.MultiSteps(library.apply_if_finite(library.sgd(1.0), 100), 2)
    seen, state = run(library, tx, [G[0], bad, *G[2:6]])
    ended_well = all(bool(jnp.all(jnp.isfinite(x))) for x in jax.tree.leaves(state.acc_grads))
    assert ended_well == (library is gradtx)  # Optax's accumulator is 0 * inf = NaN for ever
    if library is gradtx:
        mean = jax.tree.map(lambda x, y: -(x + y) / 2, G[2], G[3])
        close(seen[3], mean)
    sums = gradtx.apply_every(2)
    assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(run(gradtx, sums, [G[0], bad, *G[2:6]])[0][3]))


def test_the_inner_one_runs_at_every_kth_call_alone():
    tx = gradtx.MultiSteps(gradtx.adam(0.1), 4)
    jaxpr = jax.make_jaxpr(tx.update)(G[0], tx.init(P), P)
    outside = [eqn.primitive.name for eqn in jaxpr.eqns]
    assert outside.count("cond") == 1
    assert not {"sqrt", "rsqrt", "div"} & set(outside) - {"div"}  # Adam's roots are in the branch
    assert "sqrt" in str(jaxpr)


def test_what_is_skipped_does_not_count():
    bad = jax.tree.map(lambda x: x * jnp.nan, G[1])
    skip = {
        "not finite": gradtx.skip_not_finite,
        "large": functools.partial(gradtx.skip_large_updates, max_squared_norm=100.0),
    }
    for name, function in skip.items():
        odd = bad if name == "not finite" else jax.tree.map(lambda x: 1e3 * x, G[1])
        tx = gradtx.MultiSteps(gradtx.sgd(1.0), 2, should_skip_update_fn=function)
        seen, state = run(gradtx, tx, [G[0], odd, G[2]])
        close(seen[2], jax.tree.map(lambda x, y: -(x + y) / 2, G[0], G[2]))
        assert state.gradient_step == 1 and not state.skip_state["should_skip"]
        assert run(gradtx, tx, [odd])[1].skip_state["should_skip"]


def test_extra_arguments_arrive_and_the_time_inside_is_of_updates():
    seen = []
    spy = gradtx.GradientTransformation(lambda p: (), lambda u, s, p=None, *, value: (seen.append(value), (u, s))[1])
    tx = gradtx.MultiSteps(gradtx.chain(spy, gradtx.trace(lambda t: 0.5), gradtx.scale(lambda t: 1.0 + t)), 2)
    _, state = run(gradtx, tx, G[:4], value=3.0)
    assert set(map(float, seen)) == {3.0}  # as often as it was traced
    assert state.inner_opt_state["count"] == 2
    alone = gradtx.MultiSteps(gradtx.trace(lambda t: 0.5 * (t > 0)), 2)  # keeps no time of its own
    jax.jit(alone.update)(G[0], alone.init(P), P)
    assert tx.gradient_transformation() is tx and tx.inner_opt == tx.opt


def test_bad_numbers_are_errors():
    for k in (0, 1.5, "2"):
        with pytest.raises(ValueError, match="every_k_schedule must be a whole number"):
            gradtx.MultiSteps(gradtx.sgd(0.1), k)
    with pytest.raises(ValueError, match="needs `update"):
        tx = gradtx.MultiSteps(gradtx.sgd(0.1), 2, weighted=True)
        tx.update(G[0], tx.init(P), P)


# Three micro-batches of a batch, twice; the numbers of tokens in each.
TOKENS = {"equal": (1.0, 1.0, 1.0), "unequal": (5.0, 1.0, 2.0)}


@pytest.mark.parametrize("name", FIRST)
def test_micro_batches_make_one_full_batch(name):
    """For every method: parameters after two batches, whole or in three parts, of one size or not.

    In float64, where a method that branches, as a line search does, takes the same branch whatever the order of a sum.
    """
    tx = CATALOGUE[name].build(gradtx)

    def full(params, batch, weights, values):
        def body(carry, batch):
            mean = lambda x: jnp.tensordot(weights / jnp.sum(weights), x, 1)
            return of(tx, *carry, jax.tree.map(mean, batch), mean(values)), None

        return jax.lax.scan(body, (params, tx.init(params)), batch)[0][0]

    def in_parts(params, batch, weights, values):
        accumulating = gradtx.MultiSteps(tx, 3, accumulator_dtype=None, weighted=True)

        def body(carry, row):
            g, weight, value = row
            return of(accumulating, *carry, g, value, weight=weight), None

        rows = jax.tree.map(lambda g: g.reshape(-1, *g.shape[2:]), batch), jnp.tile(weights, 2), jnp.tile(values, 2)
        return jax.lax.scan(body, (params, accumulating.init(params)), rows)[0][0]

    @jax.jit
    def both(*args):
        return full(*args), in_parts(*args)

    with jax.enable_x64(True):
        batches = jax.tree.map(lambda *xs: jnp.stack(xs), *[tree_of("float64", seed, lead=(3,)) for seed in (1, 2)])
        for weights in TOKENS.values():
            whole, parts = both(tree_of("float64"), batches, jnp.array(weights), jnp.array([30.0, 27.0, 36.0]))
            # a mean of three in another order, 1e-16 of it; 1e-9 is far below the 1e-6 that is asked for
            jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-9, atol=1e-9), whole, parts)


def of(tx, params, state, grads, value, **extra):
    """One step of any method."""
    updates, state = tx.update(grads, state, params, value=value, grad=grads, value_fn=convex, **extra)
    short = jax.tree.map(lambda u: u / 2, updates)  # a trust ratio on a scalar would land on 0 up to rounding
    return gradtx.apply_updates(params, short), state


def test_without_weights_equal_micro_batches_make_one_full_batch():
    for tx in (gradtx.adamw(0.1), gradtx.chain(gradtx.clip_by_global_norm(1.0), gradtx.sgd(0.1, momentum=0.9))):
        mean = jax.tree.map(lambda *gs: sum(gs) / 3, *G[:3])
        got, _ = run(gradtx, gradtx.MultiSteps(tx, 3), G[:3])
        want, _ = run(gradtx, tx, [mean])
        # float32: a mean of three in another order
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-7), got[-1], want[0])


@pytest.mark.parametrize("mean", [True, False])
def test_the_loss_is_weighted_like_the_gradients(mean):
    seen = gradtx.snapshot("value", lambda updates: updates["w"][0])
    spy = gradtx.GradientTransformation(
        lambda p: (), lambda u, s, p=None, *, value, grad: ({**u, "w": u["w"].at[0].set(value + 0 * grad["b"])}, s)
    )
    tx = gradtx.MultiSteps(gradtx.chain(spy, seen), 2, mean, weighted=True)
    params, state = P, tx.init(P)
    for value, weight in ((3.0, 1), (5.0, 3)):
        updates, state = tx.update(G[0], state, params, value=value, grad=G[1], weight=weight)
    assert float(updates["w"][0]) == ((3 + 3 * 5) / 4 if mean else 3 + 3 * 5)
    assert state.acc_grads[1] == 0 and state.acc_grads[2] == 0

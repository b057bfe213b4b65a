"""k micro-batches make one update, of the mean of their gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from tests.steps import CATALOGUE, FIRST, step, tree_of

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


# Methods that are no function of the mean gradient alone, or that measure the loss and not the gradient.
NOT_OF_THE_MEAN = ("MultiSteps", "apply_every", "monitor", "newton", "scale_by_newton")


@pytest.mark.parametrize("name", [name for name in FIRST if not name.startswith(NOT_OF_THE_MEAN)])
def test_unequal_micro_batches_make_one_full_batch(name):
    """Three micro-batches of 5, 1 and 2 tokens, twice."""
    tx, params, weights = CATALOGUE[name].build(gradtx), tree_of("float32"), jnp.array([5.0, 1.0, 2.0])
    accumulating = gradtx.MultiSteps(tx, 3, weighted=True)
    micro = [tree_of("float32", seed, lead=(3,)) for seed in (1, 2)]

    @jax.jit
    def both(params):
        full, small = (params, tx.init(params)), (params, accumulating.init(params))
        for batch in micro:
            mean = jax.tree.map(lambda g: jnp.tensordot(weights / 8, g, 1), batch)
            full = step(tx, *full, mean)
            for i in range(3):
                g = jax.tree.map(lambda g, i=i: g[i], batch)
                updates, state = accumulating.update(g, small[1], small[0], weight=weights[i], value_fn=lambda p: 0.0)
                small = gradtx.apply_updates(small[0], updates), state
        return full[0], small[0]

    full, small = both(params)
    # The mean of three is summed in another order: one rounding, 6e-8 of the gradient, and what the method makes of it.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6), full, small)

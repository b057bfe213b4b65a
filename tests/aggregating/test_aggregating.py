"""aggregating: means of examples and of micro-batches, their variance, and what is made of them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx
from gradtx import aggregating

P = {"w": jnp.linspace(-1, 1, 6).reshape(2, 3), "b": jnp.array([0.5, -0.25, 2.0])}
rng = np.random.default_rng(0)
# four micro-batches of five examples
G = [jax.tree.map(lambda p: jnp.asarray(rng.normal(size=(5, *p.shape)), jnp.float32), P) for _ in range(4)]


def close(a, b):
    """float32: means and sums of ten numbers near 1."""
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def mean(*batches):
    return jax.tree.map(lambda *gs: jnp.mean(jnp.concatenate(gs), 0), *batches)


def variance(*batches):
    return jax.tree.map(lambda *gs: jnp.var(jnp.concatenate(gs), 0, ddof=1), *batches)


def run(tx, batches=G, params=P, **extra):
    state, seen = tx.init(params), []
    update = jax.jit(lambda g, s, p: tx.update(g, s, p, **extra))
    for g in batches:
        updates, state = update(g, state, params)
        params = gradtx.apply_updates(params, updates)
        seen.append(updates)
    return seen, state, params


def test_the_mean_of_examples():
    (got, *_), _, _ = run(aggregating.average_per_element_updates())
    close(got, mean(G[0]))
    several = aggregating.average_per_element_updates((0, 1))
    stacked = jax.tree.map(lambda *gs: jnp.stack(gs), *G)
    close(several.update(stacked, several.init(P), P)[0], mean(*G))
    last = aggregating.average_per_element_updates(-1)
    g = jax.tree.map(lambda g: jnp.moveaxis(g, 0, -1), G[0])
    close(last.update(g, last.init(P), P)[0], mean(G[0]))


@pytest.mark.parametrize("axis", [0, None])
def test_examples_of_micro_batches_make_one_batch(axis):
    batches = G if axis == 0 else [mean(g) for g in G]
    tx = aggregating.process(
        gradtx.identity(), aggregating.average_incrementally_updates(axis, 2), gradtx.adamw(0.1, weight_decay=0.1)
    )
    seen, state, params = run(tx, batches)
    _, alone, want = run(gradtx.adamw(0.1, weight_decay=0.1), [mean(*G[:2]), mean(*G[2:])])
    close(params, want)
    close(state[2], alone)
    assert all(jnp.all(u == 0) for i in (0, 2) for u in jax.tree.leaves(seen[i]))


def test_one_infinite_gradient_does_not_stay():
    bad = jax.tree.map(lambda g: g * jnp.inf, G[1])
    for tx in (
        aggregating.average_incrementally_updates(0, 2),
        aggregating.process(
            gradtx.identity(),
            aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, 2),
            gradtx.apply_if_finite(gradtx.sgd(0.1)),
            True,
        ),
    ):
        state = run(tx, [G[0], bad, *G[2:]])[1]
        assert all(jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(state))


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_mean_and_squares_are_those_of_all_examples(steps):
    tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads(0, steps)
    state = tx.init(P)
    for i, g in enumerate(G):
        (got, aux), state = jax.jit(tx.update)(g, state)
        if (i + 1) % steps == 0:
            batch = G[i + 1 - steps : i + 1]
            assert int(aux["sample_size"]) == 5 * steps
            close(got, mean(*batch))
            close(jax.tree.map(lambda s, n=steps: s / (5 * n - 1), aux["sum_sq_diff_grads"]), variance(*batch))
        else:
            assert int(aux["sample_size"]) == 0 and all(jnp.all(x == 0) for x in jax.tree.leaves((got, aux)))


def test_the_squares_of_complex_gradients_are_real():
    g = jnp.array([[1 + 1j], [1 - 1j]])
    tx = aggregating.get_per_element_mean_and_sum_sq_diff_grads()
    (got, aux), _ = tx.update(g, tx.init(g[0]))
    assert got == 1 and aux["sum_sq_diff_grads"] == 2 and aux["sum_sq_diff_grads"].dtype == jnp.float32


@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("decay", [0.0, 0.9, lambda t: 0.5])
def test_averages_of_mean_and_variance_over_time(decay, steps):
    tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1), decay, accumulation_steps=steps)
    _, state, params = run(tx)
    d, groups = (0.5 if callable(decay) else decay), [G[i : i + steps] for i in range(0, 4, steps)]
    weights = [d ** (len(groups) - 1 - i) * (1 - d) / (1 - d ** len(groups)) for i in range(len(groups))]
    average = lambda of: jax.tree.map(
        lambda *xs: sum(w * x for w, x in zip(weights, xs, strict=True)), *[of(*group) for group in groups]
    )
    got = aggregating.get_unbiased_mean_and_variance_ema(state)
    close(got, (average(mean), average(variance)))
    close(params, run(gradtx.sgd(0.1), [mean(*group) for group in groups])[2])


@pytest.mark.parametrize("steps", [1, 2])
def test_the_numbers_are_optaxs(steps):
    ours, theirs = (
        lib.experimental.aggregating.add_mean_variance_to_opt(lib.adam(0.1), 0.9, 0, steps) for lib in (gradtx, optax)
    )
    states = ours.init(P), theirs.init(P)
    for g in G:
        (u, first), (w, second) = ours.update(g, states[0]), theirs.update(g, states[1])
        states = first, second
        # Optax loses five of seven digits of 1 - 0.999^t
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6), u, w)
    if steps == 1:
        close(
            aggregating.get_unbiased_mean_and_variance_ema(states[0]),
            optax.experimental.aggregating.get_unbiased_mean_and_variance_ema(states[1]),
        )
    else:
        got = aggregating.get_unbiased_mean_and_variance_ema(states[0])
        close(got, optax.experimental.aggregating.get_unbiased_mean_and_variance_ema(states[1]))


def test_one_example_has_variance_zero_and_before_an_update_all_is_zero():
    tx = aggregating.add_mean_variance_to_opt(gradtx.sgd(0.1))
    before = aggregating.get_unbiased_mean_and_variance_ema(tx.init(P))
    assert all(jnp.all(x == 0) for x in jax.tree.leaves(before))
    one = jax.tree.map(lambda g: g[:1], G[0])
    _, of_one = aggregating.get_unbiased_mean_and_variance_ema(run(tx, [one])[1])
    assert all(jnp.all(x == 0) for x in jax.tree.leaves(of_one))


def test_an_aggregator_of_two_functions_is_one():
    largest = aggregating.Aggregator(
        lambda params: (), lambda g, s, p=None: (jax.tree.map(lambda g: g[jnp.argmax(jnp.abs(g[:, 0]))], g), s)
    )
    flat = [{"b": g["b"]} for g in G]
    tx = aggregating.process(gradtx.clip(1.0), largest, gradtx.sgd(1.0))
    seen, _, _ = run(tx, flat, {"b": P["b"]})
    for u, g in zip(seen, flat, strict=True):
        clipped = jnp.clip(g["b"], -1, 1)
        close(u["b"], -clipped[jnp.argmax(jnp.abs(clipped[:, 0]))])
    for is_one in (largest, tx, gradtx.chain(largest), gradtx.dpsgd(0.1, 1.0, 1.0, 0)):
        assert isinstance(is_one, aggregating.Aggregator)
    for is_none in (gradtx.adam(0.1), aggregating.accumulate_avg_updates(2), 3):
        assert not isinstance(is_none, aggregating.Aggregator)
    names = {name: getattr(gradtx, name) for name in ("chain", "clip", "scale_by_learning_rate")}
    names |= {"process": aggregating.process, "largest": largest}
    assert eval(repr(tx).replace(repr(largest), "largest"), names) == tx


def test_extra_arguments_and_evaluation_reach_the_postprocessor():
    tx = aggregating.process(
        gradtx.identity(), aggregating.average_incrementally_updates(0, 2), gradtx.contrib.momo(0.1)
    )
    seen, _, _ = run(tx, value=2.0)
    assert any(jnp.any(u != 0) for u in jax.tree.leaves(seen[1]))
    assert gradtx.eval_params(tx, tx.init(P), P) is P


def test_what_is_wrong_is_named():
    with pytest.raises(ValueError, match="accumulation_steps must"):
        aggregating.accumulate_avg_updates(0)
    with pytest.raises(TypeError, match="`average_per_element_updates`: per_elt_axis must be an axis or several"):
        aggregating.average_per_element_updates(0.5)
    tx = aggregating.average_per_element_updates()
    with pytest.raises(ValueError, match="one number of examples"):
        tx.update({**G[0], "b": G[0]["b"][:2]}, tx.init(P), P)
    with pytest.raises(ValueError, match="must have the axes"):
        tx.update([jnp.ones(())], tx.init([jnp.ones(())]))
    with pytest.raises(ValueError, match=r"shape \(3,\), params have \(2, 3\)"):
        tx.update({"w": P["w"]}, tx.init(P), {"w": P["w"]})  # a mean already
    alone = aggregating.track_per_element_mean_and_variance_with_ema()
    with pytest.raises(ValueError, match="reads `sum_sq_diff_grads=`"):
        alone.update(P, alone.init(P), P)
    with pytest.raises(ValueError, match="must hold one PerElementMeanAndVarianceEMAState, found 0"):
        aggregating.get_unbiased_mean_and_variance_ema(gradtx.adam(0.1).init(P))


def test_the_number_of_examples():
    count = aggregating.get_batch_size_from_per_elt_updates
    assert count(G[0], 0) == 5 and count([jnp.ones((2, 3, 4))], (0, -1)) == 8 and count({}, 0) == 1


def test_the_room_of_optax_holds_the_same():
    for name in dir(aggregating):
        assert getattr(gradtx.experimental.aggregating, name) is getattr(aggregating, name)

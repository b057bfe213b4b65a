"""differentially_private_aggregate, dpsgd: Abadi et al. 2016 (arXiv 1607.00133), Algorithm 1."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import gradtx

P = {"w": jnp.linspace(-1, 1, 12).reshape(4, 3), "b": jnp.array([0.5, -0.25, 2.0])}
X, Y = jnp.cos(jnp.arange(40.0)).reshape(10, 4), jnp.sin(jnp.arange(30.0)).reshape(10, 3)


def loss(params, x, y):
    return jnp.sum((jnp.tanh(x @ params["w"] + params["b"]) - y) ** 2)


def each(params, x=X, y=Y):
    return jax.vmap(jax.grad(loss), (None, 0, 0))(params, x, y)


def aggregated(grads, bound):
    """The formula without noise, in NumPy: the mean of the examples' gradients, each no longer than the bound."""
    rows = [jax.tree.map(lambda g, i=i: np.asarray(g[i], np.float64), grads) for i in range(10)]
    sizes = [np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(row))) for row in rows]
    factors = [min(1.0, bound / size) for size in sizes]
    return jax.tree.map(lambda *gs: sum(f * g for f, g in zip(factors, gs, strict=True)) / 10, *rows)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(("momentum", "nesterov"), [(None, False), (0.9, False), (0.9, True)])
def test_ten_steps_are_the_formulas(momentum, nesterov, precision):
    with jax.enable_x64(precision == "float64"):
        x, y, params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x), precision), (X, Y, P))
        tx, velocity = gradtx.dpsgd(0.3, 0.7, 0.0, 0, momentum, nesterov), 0
        state, decay = tx.init(params), momentum or 0.0
        step = jax.jit(tx.update)
        for _ in range(10):
            grads = each(params, x, y)
            mean = jax.flatten_util.ravel_pytree(aggregated(grads, 0.7))[0]
            velocity = decay * velocity + mean
            want = -0.3 * (mean + decay * velocity if nesterov else velocity)
            updates, state = step(grads, state, params)
            got = jax.flatten_util.ravel_pytree(updates)[0]
            # some ten roundings of numbers near 0.3
            np.testing.assert_allclose(got, want, atol=1e-6 if precision == "float32" else 1e-14)
            params = gradtx.apply_updates(params, updates)


def test_without_bound_and_noise_it_is_sgd_on_the_mean():
    tx = gradtx.dpsgd(0.1, 1e30, 0.0, key=0)
    updates, _ = tx.update(each(P), tx.init(P), P)
    want = jax.tree.map(lambda g: -0.1 * jnp.mean(g, 0), each(P))
    jax.tree.map(lambda u, w: np.testing.assert_allclose(u, w, rtol=1e-5, atol=1e-7), updates, want)  # float32 sums


def test_the_noise_is_normal_of_the_multiple_of_the_bound():
    """The sample variance of n normals is off by sqrt(2 / n) of it; five of those are seen once in two million."""
    g, n = jnp.zeros((4, 100_000)), 100_000
    tx = gradtx.differentially_private_aggregate(3.0, 2.0, key=1)
    first, state = tx.update(g, tx.init(g[0]))
    second, _ = tx.update(g, state)
    for noise in (first, second):
        assert abs(np.var(np.asarray(noise, np.float64)) / (3 * 2 / 4) ** 2 - 1) < 5 * np.sqrt(2 / n)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(n)


def test_no_example_moves_the_mean_by_more_than_the_bound():
    tx = gradtx.differentially_private_aggregate(0.7, 1.0, 5)
    grads = each(P)
    other = jax.tree.map(lambda g: g.at[3].set(1e6), grads)
    (a, _), (b, _) = (tx.update(g, tx.init(P), P) for g in (grads, other))
    moved = jax.tree.map(jnp.subtract, a, b)
    assert 0 < float(gradtx.global_norm(moved)) <= 2 * 0.7 / 10 * (1 + 1e-5)  # float32


def test_the_noise_goes_on_from_a_checkpoint_and_is_the_keys():
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, key=jax.random.key(3))
    other = gradtx.differentially_private_aggregate(1.0, 1.0, key=4)
    _, state = tx.update(each(P), tx.init(P), P)
    copy = jax.tree.map(jnp.array, state)
    next_one = lambda tx, state: np.asarray(tx.update(each(P), state, P)[0]["b"])
    np.testing.assert_array_equal(next_one(tx, state), next_one(tx, copy))
    assert not np.array_equal(next_one(tx, copy), next_one(other, copy))
    assert not np.array_equal(next_one(tx, copy), next_one(tx, tx.init(P)))


def test_keys_have_two_names_and_no_default():
    assert gradtx.dpsgd(0.1, 1.0, 1.0, 3) == gradtx.dpsgd(0.1, 1.0, 1.0, key=3)
    assert gradtx.differentially_private_aggregate(1.0, 1.0, seed=3) == gradtx.differentially_private_aggregate(
        1.0, 1.0, 3
    )
    with pytest.raises(TypeError, match="`differentially_private_aggregate`: key must be"):
        gradtx.dpsgd(0.1, 1.0, 1.0)
    with pytest.raises(ValueError, match="seed is an older name of key"):
        gradtx.dpsgd(0.1, 1.0, 1.0, 3, key=3)


def test_what_gives_no_gradients_of_examples_is_an_error():
    tx = gradtx.differentially_private_aggregate(1.0, 1.0, 0)
    mean = jax.tree.map(lambda g: jnp.mean(g, 0), each(P))
    with pytest.raises(ValueError, match="first dimension of every leaf must be the examples"):
        tx.update(mean, tx.init(P), P)
    with pytest.raises(ValueError, match=r"shape \(3,\), params have \(4, 3\)"):
        tx.update({"w": mean["w"]}, tx.init(P), {"w": P["w"]})
    with pytest.raises(ValueError, match=r'updates\["b"\] has shape'):
        gradtx.sgd(0.1).update(each(P), gradtx.sgd(0.1).init(P), P)  # what takes no examples


@pytest.mark.parametrize("around", [lambda tx: gradtx.monitor(tx), lambda tx: gradtx.chain(tx, gradtx.adam(0.1))])
def test_it_may_stand_in_others(around):
    tx = around(gradtx.differentially_private_aggregate(1.0, 0.0, 0))
    updates, _ = jax.jit(tx.update)(each(P), tx.init(P), P)
    assert jax.tree.map(jnp.shape, updates) == jax.tree.map(jnp.shape, P)


def test_a_batch_divided_over_devices_is_one_batch():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,), devices=jax.devices()[:2])
    tx = gradtx.differentially_private_aggregate(0.7, 1.0, 0)
    want, _ = tx.update(each(P), tx.init(P))
    with jax.set_mesh(mesh):
        place = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
        got, _ = jax.jit(tx.update)(jax.device_put(each(P), place), tx.init(P))
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), got, want)  # float32 sums


def test_schedules_and_a_parameter_without_gradient():
    tx = gradtx.differentially_private_aggregate(lambda t: 1.0 + t, lambda t: 0.5, 0)
    grads = {**each(P), "b": None}
    updates, state = tx.update(grads, tx.init(P), P)
    assert updates["b"] is None and int(state.count) == 1


def test_optax_overflows_where_norms_are_float32_here():
    grads = [jnp.full((2, 1), 300.0, "float16")]
    ours, theirs = (
        lib.contrib.differentially_private_aggregate(1.0, 0.0, key=0).update(
            grads, lib.contrib.differentially_private_aggregate(1.0, 0.0, key=0).init([jnp.zeros(1)])
        )[0]
        for lib in (gradtx, optax)
    )
    np.testing.assert_allclose(ours, [[1.0]], rtol=1e-6)
    assert float(theirs[0][0]) == 0

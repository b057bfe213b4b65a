"""microbatch, reshape_batch_axis: one part of a batch after another is the whole batch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx import microbatching
from gradtx.microbatching import AccumulationType, microbatch, reshape_batch_axis

MEAN, SUM, RUNNING_MEAN, CONCAT = AccumulationType
X = jnp.cos(jnp.arange(24.0)).reshape(8, 3)
W = jnp.linspace(-1, 1, 3)
EXPLICIT = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Explicit,), devices=jax.devices()[:2])
AUTO = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:2])


def loss(w, x):
    return jnp.mean(jnp.tanh(x @ w) ** 2)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_mean_gradient_of_the_parts_is_that_of_the_batch(size):
    in_parts = jax.jit(microbatch(jax.value_and_grad(loss), 1, size, MEAN))
    for got, want in zip(in_parts(W, X), jax.value_and_grad(loss)(W, X), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)  # float32: a sum of eight in another order


def test_without_a_size_it_is_the_function_itself():
    assert microbatch(loss, 1, None) is loss


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_part_i_holds_every_nth_entry(axis):
    x = np.arange(4 * 6 * 8).reshape(4, 6, 8)
    got = np.asarray(reshape_batch_axis(x, 2, axis))
    n, at = x.shape[axis] // 2, axis % 3
    for i in range(n):
        np.testing.assert_array_equal(got.take(i, at), x.take(range(i, x.shape[axis], n), at))
    np.testing.assert_array_equal(got, optax.microbatching.reshape_batch_axis(jnp.asarray(x), 2, at))


@pytest.mark.parametrize("axes", [0, (0, -1), (0, 1)])
def test_several_arguments_have_their_axes_and_names(axes):
    def fun(shift, x, *, y):
        return x["a"] + y["b"].swapaxes(0, -1) if axes != 0 else x["a"] + y["b"] + shift

    x, y = {"a": X}, {"b": X if axes == 0 else X.T}
    shift = 0.0
    got = microbatch(fun, 1, 2, CONCAT, argnames="y", in_axes=axes)(shift, x, y=y)
    np.testing.assert_array_equal(got, fun(shift, x, y=y))


def test_a_part_alone_is_in_memory():
    """The compiled program has no array of all examples' outer products, of which one part's are a quarter."""
    outer = lambda x: jnp.sum(jnp.exp(x[:, :, None] * x[:, None, :]), axis=0)
    x = jnp.ones((64, 16))
    temporary = lambda f: jax.jit(jax.grad(lambda x: jnp.sum(f(x)))).lower(x).compile().memory_analysis()
    whole, parts = (temporary(f).temp_size_in_bytes for f in (outer, microbatch(jax.checkpoint(outer), 0, 16)))
    assert parts < whole / 2


def test_a_number_of_parts_known_in_the_program_alone_compiles_once():
    traces = []

    @jax.jit
    def run(number):
        traces.append(number)
        return microbatch(lambda x: jnp.sum(x), 0, 2, num_real_microbatches=number)(jnp.arange(8.0))

    np.testing.assert_allclose([run(n) for n in range(5)], [0, 0 + 4, 0 + 4 + 1 + 5, 18, 28])
    np.testing.assert_allclose([run(-1), run(7)], [0, 28])  # as many as there are, and no more
    assert len(traces) == 1


def test_derivatives_in_both_modes():
    in_parts = microbatch(lambda w, x: jnp.sum(jnp.tanh(x @ w)), 1, 2)
    whole = lambda w: jnp.sum(jnp.tanh(X @ w))
    np.testing.assert_allclose(jax.grad(in_parts)(W, X), jax.grad(whole)(W), rtol=1e-5)  # float32
    forward = jax.jvp(lambda w: in_parts(w, X), (W,), (W,))[1]
    np.testing.assert_allclose(forward, jax.jvp(whole, (W,), (W,))[1], rtol=1e-5)


@pytest.mark.parametrize("kind", AccumulationType)
def test_explicit_shardings_stay(kind):
    with jax.set_mesh(EXPLICIT):
        x = jax.device_put(X, NamedSharding(EXPLICIT, PartitionSpec("data")))
        got = jax.jit(microbatch(lambda x: 2 * x, 0, 4, kind))(x)
        assert jax.typeof(got).sharding.spec[0] == "data"
        want = microbatch(lambda x: 2 * x, 0, 4, kind)(np.asarray(X))
        np.testing.assert_allclose(got, want, rtol=1e-6)
        with pytest.raises(ValueError, match="microbatch_size, 1, must be divisible by the 2 shards"):
            reshape_batch_axis(x, 1)


@pytest.mark.parametrize("kind", AccumulationType)
def test_each_device_of_a_manual_axis_has_its_batch(kind):
    fun, split = microbatch(lambda x: jnp.sum(x, axis=0, keepdims=True), 0, 2, kind), PartitionSpec("data")
    got = jax.jit(jax.shard_map(fun, mesh=AUTO, in_specs=split, out_specs=split))(X)
    np.testing.assert_allclose(got, jnp.concatenate([fun(X[:4]), fun(X[4:])]), rtol=1e-6)


def test_random_keys_and_numpy_arrays_are_batches():
    keys = jax.random.split(jax.random.key(0), 4)
    draw = jax.vmap(lambda key, x: x + jax.random.uniform(key))
    got = microbatch(draw, (0, 1), 2, CONCAT)(keys, np.arange(4.0, dtype="float32"))
    np.testing.assert_array_equal(got, draw(keys, jnp.arange(4.0)))


def test_what_does_not_fit_is_named():
    fun = lambda *args, **kwargs: 0.0
    with pytest.raises(ValueError, match="`microbatch`: the batch of 8 must be divisible by microbatch_size, 3"):
        microbatch(fun, 0, 3)(X)
    with pytest.raises(ValueError, match=r"`microbatch`: the arguments must have batches of one size.*\[4, 8\]"):
        microbatch(fun, (0, 1), 2)(X, X[:4])
    with pytest.raises(ValueError, match=r"at least 1, got \[0\]"):
        microbatch(fun, 0, 2)(X[:0])
    with pytest.raises(ValueError, match=r"shape \(\) has no axis 0"):
        microbatch(fun, 0, 2)(3.0)
    with pytest.raises(ValueError, match=r"`microbatch`: in_axes must be one number, or one for each of \(0, 'y'\)"):
        microbatch(fun, 0, 2, argnames="y", in_axes=(0,))
    for size in (0, -2, 1.5):
        with pytest.raises(ValueError, match="`microbatch`: microbatch_size must be a whole number of at least 1"):
            microbatch(fun, 0, size)
    with pytest.raises(ValueError, match="num_real_microbatches must be from 0 to the 4 there are, got 5"):
        microbatch(fun, 0, 2, num_real_microbatches=np.int32(5))(X)
    with pytest.raises(ValueError, match="`reshape_batch_axis`: the axis of 8 must be divisible by microbatch_size, 3"):
        reshape_batch_axis(X, 3)


def test_names_are_optaxs():
    assert {name for name in optax.microbatching.__dict__ if not name.startswith("_")} <= set(dir(microbatching))

"""AccumulationType, Accumulator: how the results of parts become one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.microbatching import AccumulationType, Accumulator, micro_vmap, microbatch

MEAN, SUM, RUNNING_MEAN, CONCAT = AccumulationType
X = jnp.arange(8.0)
PARTS = [X[i::4] for i in range(4)]  # two entries each


@pytest.mark.parametrize("real", [None, 4, 3, 1, 0])
def test_each_kind_is_its_formula(real):
    fun = lambda x: jnp.sum(x**2)
    found = {kind: microbatch(fun, 0, 2, kind, num_real_microbatches=real)(X) for kind in AccumulationType}
    values = [fun(x) for x in PARTS[: 4 if real is None else real]]
    assert float(found[SUM]) == sum(values)
    assert float(found[MEAN]) == sum(values) / 4
    np.testing.assert_allclose(found[RUNNING_MEAN], sum(values) / max(len(values), 1), rtol=1e-6)  # a division
    np.testing.assert_array_equal(found[CONCAT], values + [0.0] * (4 - len(values)))


def test_concatenated_entries_are_in_the_order_of_the_batch():
    np.testing.assert_array_equal(microbatch(lambda x: x + 1, 0, 2, CONCAT)(X), X + 1)
    first = microbatch(lambda x: x + 1, 0, 2, CONCAT, num_real_microbatches=1)(X)
    np.testing.assert_array_equal(first, jnp.where(X % 4 == 0, X + 1, 0))


def test_each_leaf_may_have_its_own_kind():
    fun = lambda x: {"sum": (jnp.sum(x), jnp.max(x)), "x": x, "none": None}
    got = microbatch(fun, 0, 2, {"sum": SUM, "x": CONCAT, "none": None})(X)
    assert float(got["sum"][0]) == 28.0 and float(got["sum"][1]) == 4 + 5 + 6 + 7 and got["none"] is None
    np.testing.assert_array_equal(got["x"], X)


def test_ones_own_accumulator():
    largest = Accumulator(
        init=lambda shapes: jax.tree.map(lambda s: jnp.full(s.shape, -jnp.inf, s.dtype), shapes),
        update=lambda carry, x, i: jax.tree.map(jnp.maximum, carry, x),
        finalize=lambda carry: carry,
        aggregate=lambda xs: jax.tree.map(lambda x: jnp.max(x, axis=0), xs),
    )
    got = microbatch(lambda x: (jnp.max(x), jnp.max(-x)), 0, 2, largest)(X)
    assert (float(got[0]), float(got[1])) == (7.0, 0.0)
    assert float(micro_vmap(lambda x: x, microbatch_size=2, accumulator=largest)(X)) == 7.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_numbers_are_added_in_float32(dtype):
    """Of 4096 ones, each added in float16, 2048 remain, and in bfloat16 256."""
    for got in (
        microbatch(lambda x: jnp.sum(x), 0, 1)(jnp.ones(4096, dtype)),
        micro_vmap(lambda x: x, microbatch_size=2, accumulator=SUM)(jnp.ones(4096, dtype)),
    ):
        assert got.dtype == dtype and float(got) == 4096


@pytest.mark.parametrize(("dtype", "sums"), [("int8", "int32"), ("uint8", "uint32"), ("int32", "int32")])
def test_narrow_integers_are_added_in_32_bits(dtype, sums):
    got = micro_vmap(lambda x: x, microbatch_size=2, accumulator=SUM)(jnp.full(8, 100, dtype))
    assert got.dtype == sums and int(got) == 800


def test_bools_are_counted():
    got = microbatch(lambda x: jnp.any(x > 2), 0, 2)(X)
    assert got.dtype == jnp.int32 and int(got) == 4


@pytest.mark.parametrize("kind", [MEAN, RUNNING_MEAN])
def test_the_mean_of_integers_is_an_error(kind):
    with pytest.raises(ValueError, match="mean of int32 numbers"):
        microbatch(lambda x: jnp.sum(x), 0, 2, kind)(jnp.arange(8))


def test_what_is_no_accumulator_is_named():
    with pytest.raises(ValueError, match="accumulator must be like what the function returns, or a prefix"):
        microbatch(lambda x: (x, x), 0, 2, {"a": SUM})(X)
    with pytest.raises(ValueError, match="`Accumulator`s, got 'sum'"):
        microbatch(jnp.sum, 0, 2, "sum")(X)

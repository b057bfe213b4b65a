"""Codes are the nearest of their book, roundings are without bias, and Adam's direction survives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import storage
from gradtx.storage import blocks, rounding
from gradtx.storage.codec import Stored
from gradtx.storage.dynamic import book

SIGNED, SQUARES = storage.int8("signed"), storage.int8("squares")
CODECS = [SIGNED, SQUARES, storage.float8(), storage.float8("squares"), storage.corrected(), storage.bfloat16()]
every_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)
KEY = jax.random.key(0)


def numbers(*shape, spread=1.0, seed=0):
    """Gaussian numbers whose scales are lognormal."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * np.exp(spread * rng.normal(size=shape))).astype(np.float32)


def of_kind(codec, x):
    return np.square(x) if getattr(codec, "book", "") == "squares" else x


def there_and_back(codec, x, key=KEY):
    return np.asarray(codec.decode(codec.encode(jnp.asarray(x), key)))


# Books


def test_books_are_dynamic_trees_of_256_values():
    """Their ends as the authors of 8-bit optimizers publish them in `create_dynamic_map`."""
    signed, squares = book(1), book(2)
    assert len(signed[1:]) + len(signed) - 1 == len(squares) == 256  # one sign has not the 1
    assert (np.diff(signed) > 0).all() and (np.diff(squares) > 0).all()
    assert signed[[1, -2]] == pytest.approx([5.5e-7, 0.99296875]) and squares[1] == pytest.approx(3.25e-7)
    assert signed[-1] == squares[-1] == 1


@pytest.mark.parametrize("codec", [SIGNED, SQUARES], ids=repr)
def test_a_code_is_the_nearest_of_all(codec):
    x = of_kind(codec, numbers(16, 512, spread=3.0))
    codes, scales = codec.encode(jnp.asarray(x), None)
    share = (x if codec is SIGNED else np.sqrt(x)).reshape(16, 4, 128) / np.float64(scales)[..., None]
    values = np.concatenate([-book(1)[:0:-1], book(1)[:-1]]) if codec is SIGNED else book(2)
    first = -128 if codec is SIGNED else 0
    nearest = np.argmin(np.abs(share[..., None] - values), axis=-1).reshape(16, 512) + first
    np.testing.assert_array_equal(codes, nearest if codec is SIGNED else np.maximum(nearest, 1))
    np.testing.assert_allclose(
        codec.decode((codes, scales)), _looked_up(codec, codes, scales, values, first), rtol=1e-6
    )


def _looked_up(codec, codes, scales, values, first):
    share = values[np.asarray(codes, int) - first].reshape(16, 4, 128) * np.float64(scales)[..., None]
    return (share if codec is SIGNED else share**2).reshape(16, 512)


def test_a_square_that_is_not_0_is_not_stored_as_0():
    for codec in (SQUARES, storage.float8("squares")):
        x = np.array([[1.0, 1e-20, 0.0, 1e-30, 1e-12]], np.float32)
        found = there_and_back(codec, x)
        assert (found[:, [0, 1, 3, 4]] > 0).all() and found[0, 2] == 0


@every_codec
@pytest.mark.parametrize("length", [1, 3, 100, 128, 130, 257])
def test_the_largest_of_a_block_is_exact_or_nearly_and_the_error_is_bounded(codec, length):
    x = of_kind(codec, numbers(3, length, seed=length))
    parts = codec.encode(jnp.asarray(x), KEY)
    assert parts[0].shape == x.shape
    found = np.asarray(codec.decode(parts))
    largest = np.max(np.abs(x))
    # half of the widest step is 0.45 / 64 of the largest, of roots half; of float8 1/16 of the entry, squared 1/8
    assert np.max(np.abs(found - x)) <= largest * {"int8": 0.0071, "float8": 0.13}.get(type(codec).__name__, 2**-8)
    if type(codec).__name__ == "int8":
        row = np.argmax(np.max(np.abs(x), 1))
        place = row, np.argmax(np.abs(x[row]))
        assert found[place] == pytest.approx(x[place], rel=1e-6)


@every_codec
def test_what_was_stored_and_read_is_stored_alike(codec):
    """Else a parameter without gradients would drift."""
    x = of_kind(codec, numbers(8, 384, spread=2.0))
    once = codec.encode(jnp.asarray(x), KEY)
    again = codec.encode(codec.decode(once), jax.random.key(1))
    np.testing.assert_array_equal(codec.decode(again), codec.decode(once))


@every_codec
def test_zeros_are_zeros_in_every_part(codec):
    x = jnp.zeros((4, 130))
    for made, encoded in zip(codec.zeros(x), codec.encode(x, KEY), strict=True):
        assert made.dtype == encoded.dtype and made.shape == encoded.shape
        assert not np.asarray(made, np.float32).any() and not np.asarray(encoded, np.float32).any()
    assert not there_and_back(codec, x).any()


@every_codec
def test_what_is_not_finite_does_not_become_a_number(codec):
    for bad in (np.nan, np.inf):
        x = np.abs(numbers(1, 8))
        x[0, 3] = bad
        assert not np.isfinite(there_and_back(codec, x)[0, 3])


def test_blocks_fill_the_axis_where_they_can():
    widths = {length: blocks.width(length, 128) for length in (1, 100, 128, 130, 200, 257, 768, 50257)}
    assert widths == {1: 1, 100: 100, 128: 128, 130: 65, 200: 100, 257: 128, 768: 128, 50257: 128}
    assert [blocks.count(length, 128) for length in (1, 128, 130, 257)] == [1, 1, 2, 3]


def test_a_codec_takes_what_it_makes_smaller():
    of = lambda shape, dtype: jax.ShapeDtypeStruct(shape, dtype)
    assert SIGNED.stores(of((5, 4), jnp.float32)) and not SIGNED.stores(of((5, 1), jnp.float32))
    assert not SIGNED.stores(of((), jnp.float32)) and not SIGNED.stores(of((0, 4), jnp.float32))
    assert not SIGNED.stores(of((8, 8), jnp.complex64)) and not SIGNED.stores(of((8, 8), jnp.int32))
    assert SIGNED.stores(of((8, 8), jnp.bfloat16)) and not storage.bfloat16().stores(of((8, 8), jnp.bfloat16))


# Adam


@pytest.mark.parametrize(("spread", "bound"), [(0.0, 0.012), (1.0, 0.03), (2.0, 0.08)])
def test_adams_direction_survives_eight_bits(spread, bound):
    """Relative error of m / (sqrt(v) + 1e-8) where the entries' scales are lognormal with this deviation of the log."""
    rng = np.random.default_rng(0)
    scale = np.exp(spread * rng.normal(size=(400, 512)))
    m = (1e-3 * rng.normal(size=scale.shape) * scale).astype(np.float32)
    v = (1e-6 * scale**2 * (0.5 + rng.random(scale.shape))).astype(np.float32)
    direction = lambda m, v: m / (np.sqrt(v) + 1e-8)
    wanted, found = direction(m, v), direction(there_and_back(SIGNED, m), there_and_back(SQUARES, v))
    assert np.sqrt(np.mean((found - wanted) ** 2) / np.mean(wanted**2)) <= bound


# bfloat16


def test_rounding_by_chance_takes_a_neighbour_and_has_no_bias():
    x = jnp.array([1.001, -0.9999, 3e-5, -7.3e8, 1.5, 0.0], jnp.float32)
    draws = jax.jit(jax.vmap(lambda key: rounding.stochastic(x, key)))(jax.random.split(KEY, 100_000))
    draws = np.asarray(draws, np.float64)
    below = np.asarray(jax.lax.bitcast_convert_type(jax.lax.bitcast_convert_type(x, jnp.uint32) & ~0xFFFF, jnp.float32))
    step = 2 * np.asarray(rounding.half_step(jnp.asarray(below)))
    assert all(
        set(column) <= {low, low + np.sign(low) * h} for column, low, h in zip(draws.T, below, step, strict=True)
    )
    # the mean of 100,000 draws has a deviation of at most 2^-8 / 2 / 316 = 6e-6 of the entry
    np.testing.assert_allclose(draws.mean(0)[:5], x[:5], rtol=3e-5)
    assert (draws[:, 4:] == [1.5, 0.0]).all()  # what a bfloat16 holds stays
    assert np.isposinf(rounding.stochastic(jnp.float32(jnp.inf), KEY)) and np.isnan(
        rounding.stochastic(jnp.float32(jnp.nan), KEY)
    )


def test_a_corrected_bfloat16_has_16_bits():
    x = numbers(8, 500, spread=4.0)
    np.testing.assert_allclose(there_and_back(storage.corrected(), x), x, rtol=2**-16)
    exact = jnp.asarray(x).astype(jnp.bfloat16).astype(jnp.float32)
    assert not np.asarray(storage.corrected().encode(exact, None)[1]).any()


def test_half_a_step_is_that_of_the_exponent():
    x = jnp.array([1.0, 1.9921875, 2.0, -0.5, 0.0], jnp.float32)
    np.testing.assert_array_equal(rounding.half_step(x), [2**-8, 2**-8, 2**-7, 2**-9, 0])


# What a state holds


def test_paths_name_the_form_and_the_value_prints_as_code():
    stored = Stored(SIGNED, SIGNED.encode(jnp.ones((2, 8)), None))
    names = ["/".join(key.key for key in path) for path, _ in jax.tree_util.tree_flatten_with_path(stored)[0]]
    assert names == ["int8_signed_128", "part 1"] and stored.shape == (2, 8)
    assert repr(storage.int8("squares", 64)) == "storage.int8(book='squares', block=64)"
    assert storage.int8() == SIGNED != SQUARES and len({storage.int8(), SIGNED}) == 1
    with pytest.raises(ValueError, match="`int8`: book must be one of"):
        storage.int8("unsigned")

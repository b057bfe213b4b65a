"""Intervals: what lies in one, and the nearest number that does."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.interval import Interval

TINY = float(jnp.finfo(jnp.float32).tiny)
BELOW_ONE = float(np.nextafter(np.float32(1), np.float32(0)))


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("[0, 1)", (0, 0.5, BELOW_ONE), (-1e-9, 1, float("inf"), float("nan"))),
        ("(0, 1]", (1e-30, 1), (0, 1.1)),
        ("(0, inf)", (1e-30, 1e30), (0, float("inf"))),
        ("[0, inf]", (0, float("inf")), (-1, float("nan"))),
    ],
)
def test_its_ends_are_in_it_as_written(text, inside, outside):
    assert all(x in Interval(text) for x in inside)
    assert not any(x in Interval(text) for x in outside)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[0, 1)", [0, 0, 0.5, BELOW_ONE, BELOW_ONE]),
        ("(0, 1]", [TINY, TINY, 0.5, 1, 1]),
        ("(0, 1)", [TINY, TINY, 0.5, BELOW_ONE, BELOW_ONE]),
        ("(0, inf)", [TINY, TINY, 0.5, 1, np.inf]),
        ("[0, inf]", [0, 0, 0.5, 1, np.inf]),
        ("(-inf, inf)", [-3, 0, 0.5, 1, np.inf]),
    ],
)
def test_the_nearest_number_inside(text, expected):
    given = np.array([-3, 0, 0.5, 1, np.inf], np.float32)
    np.testing.assert_array_equal(jax.jit(Interval(text).nearest)(given), np.array(expected, np.float32))
    assert [Interval(text).nearest(float(x)) for x in given] == [float(np.float32(x)) for x in expected]
    assert jnp.isnan(Interval(text).nearest(jnp.float32(jnp.nan)))


def test_integers_stay_integers():
    given = jnp.array([-5, 0, 7])
    np.testing.assert_array_equal(Interval("[1, 2147483647]").nearest(given), [1, 1, 7])
    np.testing.assert_array_equal(Interval("[1, inf)").nearest(given), [1, 1, 7])


def test_the_slope_at_an_end_that_is_inside_is_the_slope_inside():
    slopes = jax.vmap(jax.grad(Interval("[0, 1]").nearest))(jnp.array([-1.0, 0.0, 0.5, 1.0, 2.0]))
    np.testing.assert_array_equal(slopes, [0, 1, 1, 1, 0])

"""Which sides have factors, and when these are fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gradtx import MuonDimensionNumbers
from gradtx.combine.dimensions import as_dimension_numbers
from gradtx.combine.whitening import due, fourth_root_mean, probes, sides
from gradtx.linalg.axes import Axes


@pytest.mark.parametrize(
    ("shape", "merge", "expected"),
    [
        ((), False, Axes((), ((),))),
        ((5,), False, Axes((), ((0,),))),
        ((1, 1), False, Axes((), ((0, 1),))),
        ((4, 3), True, Axes((), ((0,), (1,)))),
        ((1, 4), False, Axes((), ((1, 0),))),
        ((3, 3, 2, 4), False, Axes((), ((0,), (1,), (2,), (3,)))),
        ((3, 3, 2, 4), True, Axes((), ((0, 1, 2), (3,)))),
        ((0, 3), False, None),
    ],
)
def test_sides(shape, merge, expected):
    assert sides(None, [jnp.zeros(shape)], "f", merge=merge) == [expected]


def test_dimension_numbers_name_rows_columns_and_a_batch():
    numbers = as_dimension_numbers("f", "numbers", {"a": MuonDimensionNumbers(1, 2), "b": None})
    params = {"a": jnp.zeros((5, 4, 3)), "b": jnp.zeros((2, 3))}
    assert sides(numbers, params, "f", merge=True) == [Axes((0,), ((1,), (2,))), Axes((), ((0,), (1,)))]


@pytest.mark.parametrize(("share", "expected"), [(1.0, 12), (0.5, 6), (0.34, 4), (0.1, 1), (0.0, 0)])
@pytest.mark.parametrize("kind", [float, jnp.float32])
def test_a_share_of_updates(share, expected, kind):
    since, times = jnp.int32(0), 0
    for _ in range(12):
        now, since = due(since, kind(share))
        times += int(now)
    assert times == expected


def test_probes_are_of_the_key_the_time_and_the_place():
    g = {"a": jnp.ones(100), "b": None, "c": jnp.ones(100)}
    draw = lambda key, count, now=1: probes(None, key, jnp.int32(count), jnp.array(now) > 0, g)
    first = draw(0, 0)
    assert first[1] is None and 0.5 < np.std(first[0]) < 1.5
    assert not any(np.array_equal(first[0], other) for other in (first[2], draw(0, 1)[0], draw(1, 0)[0]))
    np.testing.assert_array_equal(first[0], probes(None, 0, jnp.int32(0), True, g)[0])
    assert not np.any(draw(0, 0, 0)[0])


def test_probes_that_are_given():
    g = {"a": jnp.ones(3), "b": None}
    assert probes({"a": np.arange(3), "b": np.ones(2)}, 0, jnp.int32(0), True, g)[0].dtype == jnp.float32


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_the_fourth_root_of_the_mean(scale):
    g = [scale * jnp.array([1.0, -2.0, 3.0]), jnp.full((2, 2), scale), jnp.zeros((0, 3)), jnp.array([jnp.nan, 0])]
    np.testing.assert_allclose(fourth_root_mean(g), scale * (98 / 3) ** 0.25, rtol=1e-5)
    assert fourth_root_mean([]) == 0 and fourth_root_mean(jax.tree.map(jnp.zeros_like, g)) == 0

"""Arrays in blocks, beside NumPy's slices."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from gradtx.linalg.axes import Axes, as_matrices, every_axis
from gradtx.linalg.blocking import block_axes, block_factors, identities, join, merged, split

CASES = [
    ((6, 4), every_axis(2), 4),
    ((5, 7), every_axis(2), 2),
    ((7,), every_axis(1), 3),
    ((2, 5, 3), Axes((1,), ((2,), (0,))), 2),
    ((4, 3, 2, 3), Axes((), ((0,), (1, 2, 3))), 5),
    ((4, 3, 2, 3), Axes((1,), ((3, 0), (2,))), 5),
    ((4, 3), every_axis(2), 4),
    ((), every_axis(0), 4),
    ((0, 3), every_axis(2), 2),
]


def blocks(x, axes, largest):
    """The blocks of each tensor, in order, each with what is left of it."""
    stack = np.asarray(as_matrices(jnp.asarray(x), axes))
    spans = [[slice(i, min(i + largest, n)) for i in range(0, n, largest)] for n in stack.shape[1:]]
    return [tensor[place] for tensor in stack for place in itertools.product(*spans)]


@pytest.mark.parametrize(("shape", "axes", "largest"), CASES)
def test_each_block_is_a_tensor_and_they_come_back(shape, axes, largest):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    y = split(jnp.asarray(x), axes, largest)
    tensors = np.asarray(as_matrices(y, block_axes(shape, axes, largest)))
    for got, want in zip(tensors, blocks(x, axes, largest), strict=bool(x.size)):
        inside = tuple(slice(n) for n in want.shape)
        np.testing.assert_array_equal(got[inside], want)
        assert np.count_nonzero(got) == np.count_nonzero(want)  # the rest is 0
    np.testing.assert_array_equal(join(y, axes, largest, jnp.asarray(x)), x)


@pytest.mark.parametrize(("shape", "axes", "largest"), CASES)
def test_factors_are_square_and_of_each_block(shape, axes, largest):
    x = jnp.zeros(shape)
    y, cut = split(x, axes, largest), block_axes(shape, axes, largest)
    found = block_factors(x, axes, largest, jnp.float32)
    sizes = cut.sizes(y.shape)[1:]
    batch = tuple(y.shape[i] for i in cut.batch)
    assert [f.shape for f in found] == [(*batch, n, n) for n in sizes]
    for f in map(identities, found):
        np.testing.assert_array_equal(f, np.broadcast_to(np.eye(f.shape[-1]), f.shape))


@pytest.mark.parametrize(
    ("shape", "largest", "least", "last", "sides"),
    [
        ((1, 2, 512, 1, 2048, 1, 3, 4), 1024, 1, False, (1024, 2048, 12)),
        ((1, 2, 768, 1, 2048), 1024, 1, False, (2, 768, 2048)),
        ((32, 3, 64, 64), 8192, 1, True, (96, 4096)),
        ((32, 3, 64, 64), 10**6, 2, True, (32, 12288)),
        ((64, 64, 3, 32), 10**6, 2, False, (12288, 32)),
        ((4, 3, 3, 3), 10, 1, True, (4, 3, 9)),
        ((4, 3, 3, 3), 12, 3, True, (4, 3, 9)),
        ((1, 1), 5, 1, False, (1,)),
        ((), 5, 1, True, (1,)),
        ((7,), 5, 1, False, (7,)),
    ],
)
def test_neighbours_are_merged_up_to_a_size(shape, largest, least, last, sides):
    axes = merged(shape, largest, least=least, last=last)
    assert axes.sizes(shape)[1:] == sides
    assert sorted(axes.order) == list(range(len(shape)))
    assert list(sum(axes.sides, ())) == sorted(sum(axes.sides, ()))  # in the array's order

"""Leaves as matrices and back, and one computation for all of a shape."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gradtx.linalg.axes import as_matrices, axes, from_matrices
from gradtx.linalg.matrices import MOST, map_matrices


@pytest.mark.parametrize(
    ("shape", "rows", "columns", "stacked"),
    [
        ((2, 3), 0, 1, (1, 2, 3)),
        ((2, 3), 1, 0, (1, 3, 2)),
        ((2, 3, 4), 0, 2, (3, 2, 4)),
        ((2, 3, 4), -3, -1, (3, 2, 4)),
        ((2, 3, 4, 5), 2, (0, 3), (3, 4, 10)),
        ((2, 3, 4, 5), (3, 0), (2, 1), (1, 10, 12)),
        ((0, 3), 0, 1, (1, 0, 3)),
    ],
)
def test_an_array_of_matrices_comes_back_from_them(shape, rows, columns, stacked):
    x = np.arange(np.prod(shape)).reshape(shape)
    found = axes(len(shape), rows, columns)
    matrices = as_matrices(jnp.asarray(x), found)
    assert matrices.shape == stacked == found.sizes(shape)
    np.testing.assert_array_equal(from_matrices(matrices, found, shape), x)


def test_an_entry_is_where_its_axes_say():
    x = jnp.arange(120).reshape(2, 3, 4, 5)
    matrices = as_matrices(x, axes(4, (3, 0), 2))
    assert matrices[2, 3 * 2 + 1, 1] == x[1, 2, 1, 3]  # axis 1 is the batch


@pytest.mark.parametrize(("ndim", "rows", "columns"), [(1, 0, 1), (0, 0, 1), (2, 0, 2), (2, 0, 0), (3, (0, -3), 1)])
def test_axes_that_are_not_there_or_named_twice_are_an_error(ndim, rows, columns):
    with pytest.raises(ValueError, match="dimensions"):
        axes(ndim, rows, columns)


def leaves_and_axes():
    shapes = [(4, 6), (6, 4), (4, 6), (2, 4, 6), (5, 5), (4, 6)]
    leaves = [jnp.asarray(np.random.default_rng(i).normal(size=s), jnp.float32) for i, s in enumerate(shapes)]
    return leaves, [axes(x.ndim, -2, -1) for x in leaves]


def gram(x):
    """Of a transpose the transpose: x times its squares, each matrix for itself."""
    return x @ x.mT @ x


@pytest.mark.parametrize("compiled", [False, True])
def test_matrices_of_one_shape_are_computed_together_on_one_device(one_device, compiled):
    leaves, places = leaves_and_axes()
    seen = []

    def fn(x):
        seen.append(x.shape)
        return gram(x)

    run = lambda leaves: map_matrices(fn, leaves, places)
    found = jax.jit(run)(leaves) if compiled else run(leaves)
    assert seen == [(6, 4, 6), (1, 5, 5)]
    for x, y in zip(leaves, found, strict=True):
        np.testing.assert_allclose(y, gram(x), rtol=1e-5, atol=1e-5)  # a batched product sums in another order


def test_each_leaf_is_computed_for_itself_on_several():
    leaves, places = leaves_and_axes()
    seen = []
    map_matrices(lambda x: seen.append(x.shape) or x, leaves, places)
    assert seen == [(1, 4, 6), (1, 4, 6), (1, 4, 6), (2, 4, 6), (1, 5, 5), (1, 4, 6)]


def test_large_matrices_are_not_stacked_beyond_a_bound(one_device):
    width = int((MOST / 4 / 2) ** 0.5)  # two of them in float32
    seen = []
    fn = lambda x: seen.append(len(x)) or x
    leaves = [jax.ShapeDtypeStruct((width, width), jnp.float32)] * 5
    jax.eval_shape(lambda xs: map_matrices(jax.tree_util.Partial(fn), xs, [axes(2, 0, 1)] * 5), leaves)
    assert seen == [2, 1]  # 2, 2 and 1: the trace of the first two is shared


def test_leaves_keep_an_explicit_sharding():
    mesh = jax.make_mesh((4, 2), ("a", "b"), axis_types=(AxisType.Explicit, AxisType.Explicit))
    leaves, places = leaves_and_axes()
    with jax.set_mesh(mesh):
        split = jax.device_put(leaves[0], NamedSharding(mesh, PartitionSpec("a", "b")))
        (found,) = jax.jit(lambda x: map_matrices(gram, [x], places[:1]))(split)
    assert found.sharding.is_equivalent_to(split.sharding, 2)
    np.testing.assert_allclose(found, gram(leaves[0]), rtol=1e-5, atol=1e-5)
